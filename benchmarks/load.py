"""Client threads that submit jobs: each after its last answer (a closed loop), or at fixed times (an open loop)."""

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

#: A run that waits checks at this interval whether the peer still runs.
_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Run:
    """The answers to jobs that were submitted at once.

    Attributes:
        answered_s: the times of the answers, in seconds since the first job was submitted; in any order, at least two.
    """

    answered_s: Sequence[float]

    @property
    def per_s(self) -> float:
        """Jobs per second from the first submission to the last answer, which includes filling and emptying a queue."""
        return len(self.answered_s) / max(self.answered_s)

    @property
    def steady_per_s(self) -> float:
        """Jobs per second while the queue is full: the slope of answers over time, by least squares."""
        return statistics.linear_regression(sorted(self.answered_s), range(len(self.answered_s))).slope


class Clients:
    """Threads that last as long as this object, so that clients keep each thread's connections between runs."""

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # These are daemon threads, because one may wait for a peer that never answers.
        self._threads = [threading.Thread(target=self._loop, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for _ in self._threads:
            self._work.put(None)

    def run(self, ask: Callable[[int], None], jobs: int, check: Callable[[], None]) -> tuple[float, list[float]]:
        """Run jobs 0 to ``jobs - 1``.

        Args:
            ask: runs the job with a number, and returns once its answer has arrived.
            check: called every second without an answer; raises if the contender has ended.

        Returns:
            The seconds from the first submission to the last answer, and each job's seconds.

        Raises:
            Exception: the first exception of ``ask`` or ``check``.
        """
        return self._run(ask, [None] * jobs, check)

    def run_at(
        self, ask: Callable[[int], None], times_s: Sequence[float], check: Callable[[], None]
    ) -> tuple[float, list[float]]:
        """Run job n at ``times_s[n]`` seconds from now, whether or not earlier jobs have been answered.

        A job's seconds begin at its scheduled time, even if no client was free to submit it then.
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
            except Exception as error:  # the thread that reads the outcomes raises the error
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
    """Return the smallest value that at least this percentage of the values do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def poisson_times_s(rate_per_s: float, duration_s: float, seed: int) -> list[float]:
    """Return the arrival times of a Poisson process; they are the same for the same seed."""
    random_ = random.Random(seed)
    times_s: list[float] = []
    now_s = random_.expovariate(rate_per_s)
    while now_s < duration_s:
        times_s.append(now_s)
        now_s += random_.expovariate(rate_per_s)
    return times_s
