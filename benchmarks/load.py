"""Clients that ask: in a closed loop, each again once it has its answer, or at fixed times whatever is answered."""

from __future__ import annotations

import math
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

#: How often a waiting run looks whether the peer still lives.
_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Run:
    """Jobs that were asked for at once.

    Attributes:
        answered_s: when each answer came, in seconds from the first question; in any order, two at least.
    """

    answered_s: Sequence[float]

    @property
    def per_s(self) -> float:
        """Jobs a second from the first question to the last answer: how a queue fills and empties counts."""
        return len(self.answered_s) / max(self.answered_s)

    @property
    def steady_per_s(self) -> float:
        """Jobs a second while there are enough of them: the slope of answers over time, least squares."""
        return statistics.linear_regression(sorted(self.answered_s), range(len(self.answered_s))).slope


class Clients:
    """Threads that live as long as this, so that what a client keeps a thread (connections) is kept between runs."""

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Daemons: one may be waiting for a peer that will never answer.
        self._threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for _ in self._threads:
            self._work.put(None)

    def run(self, ask: Callable[[int], None], jobs: int, check: Callable[[], None]) -> tuple[float, list[float]]:
        """Ask for jobs 0 to ``jobs - 1``.

        Args:
            ask: returns when the job's answer has come.
            check: called every second; raises when there is nobody left to answer.

        Returns:
            Seconds from the first question to the last answer, and each job's seconds.

        Raises:
            Exception: the first that ``ask`` or ``check`` raised.
        """
        return self._run(ask, [None] * jobs, check)

    def run_at(
        self, ask: Callable[[int], None], times_s: Sequence[float], check: Callable[[], None]
    ) -> tuple[float, list[float]]:
        """Ask for job n at ``times_s[n]`` seconds from now, whether or not those before have been answered.

        A job's seconds run from the time it was meant to be asked for: one that no client was free to ask for in time
        has waited none the less.
        """
        return self._run(ask, times_s, check)

    def _run(
        self, ask: Callable[[int], None], times_s: Sequence[float | None], check: Callable[[], None]
    ) -> tuple[float, list[float]]:
        outcomes: queue.SimpleQueue[float | Exception] = queue.SimpleQueue()
        cancelled = threading.Event()

        def timed(number: int, due: float | None) -> None:
            if cancelled.is_set():
                return
            begun = time.perf_counter() if due is None else due
            try:
                ask(number)
            except Exception as error:  # the thread that reads it raises it
                outcomes.put(error)
            else:
                outcomes.put(time.perf_counter() - begun)

        started = time.perf_counter()
        latencies_s: list[float] = []
        try:
            for number, time_s in enumerate(times_s):
                if time_s is None:
                    self._work.put(partial(timed, number, None))
                    continue
                time.sleep(max(0.0, started + time_s - time.perf_counter()))
                self._work.put(partial(timed, number, started + time_s))
            while len(latencies_s) < len(times_s):
                try:
                    outcome = outcomes.get(timeout=_CHECK_INTERVAL_S)
                except queue.Empty:
                    check()
                    continue
                if isinstance(outcome, Exception):
                    raise outcome
                latencies_s.append(outcome)
        finally:
            cancelled.set()
        return time.perf_counter() - started, latencies_s

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of them do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def poisson_times_s(rate_per_s: float, duration_s: float, seed: int) -> list[float]:
    """When jobs of so many users who know nothing of each other come; the same for the same seed."""
    random_ = random.Random(seed)
    times_s: list[float] = []
    now_s = random_.expovariate(rate_per_s)
    while now_s < duration_s:
        times_s.append(now_s)
        now_s += random_.expovariate(rate_per_s)
    return times_s
