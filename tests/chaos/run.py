"""One run of the system, its producers and the faults, until all jobs are answered or no more answers come."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import jobs
from tests.chaos.accounts import Accounts, Hidden
from tests.chaos.faults import Kind, schedule
from tests.chaos.injector import Injector
from tests.chaos.processes import Ended
from tests.chaos.system import System
from tests.chaos.tally import Recovery, Tally, Verdict
from tests.chaos.waiters import Waiters
from tests.chaos.whereabouts import whereabouts

#: The period at which faults begin and end and new answers are read.
TICK_S = 0.2
LOOK_EVERY_S = 1.0
STOP_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run; equal plans have equal faults.

    Attributes:
        gap_s: The mean time between two faults. The jobs are spread over the time that all faults take.
        longest_s: The longest that any fault may last, if that is less than its kind's own maximum.
        forward_ms: How long a forward pass takes: long enough that a killed worker has jobs in hand.
        patience_s: After the last fault, the time without a new answer after which the remaining jobs count as lost.
        kinds: The kinds of faults to draw from.
    """

    jobs: int = 10_000
    faults: int = 320
    seed: int = 1
    workers: int = 3
    gap_s: float = 3.0
    longest_s: float = math.inf
    forward_ms: float = 200.0
    patience_s: float = 90.0
    kinds: frozenset[Kind] = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Report:
    """The results of a run.

    Attributes:
        lost_messages: where the messages of lost jobs are; see `whereabouts`.
        looks, hidden, falsely_unknown, told, slowest_told_s: see `Accounts`.
        not_told: jobs whose waiters did not learn in time that the job was destroyed or answered.
        waiters_failures: unexpected errors of waiters.
        destroyed: messages and answers that were purged or flushed.
        unexpected_ends: processes that ended without a fault, and how.
        stuck_stops: workers that had to be killed after SIGTERM.
        most_in_hand: the most messages that a worker held when it was killed.
        runs: executions of each job that was run at all.
        recoveries: see `Tally.recoveries`.
        disturbances: see `Injector.disturbances`.
    """

    plan: Plan
    duration_s: float
    accepted: int
    answered: int
    faults: Counter[Kind]
    verdict: Verdict
    lost_messages: Counter[str]
    looks: int
    hidden: list[Hidden]
    falsely_unknown: dict[str, str]
    not_told: set[str]
    told: int
    slowest_told_s: float
    waiters_failures: list[str]
    destroyed: Counter[str]
    unexpected_ends: list[Ended]
    stuck_stops: int
    most_in_hand: int
    runs: Counter[str]
    recoveries: list[Recovery]
    disturbances: list[tuple[float, float]]

    @property
    def failures(self) -> dict[str, int]:
        """The counts that must all be 0, by name."""
        return {
            "lost": len(self.verdict.lost),
            "changed": len(self.verdict.changed),
            "wrong": len(self.verdict.wrong),
            "innocents poisoned": len(self.verdict.poisoned),
            "hidden": max((moment.jobs for moment in self.hidden), default=0),
            "falsely unknown": len(self.falsely_unknown),
            "waiters not told": len(self.not_told),
            "waiters that failed": len(self.waiters_failures),
            "processes that ended by themselves": len(self.unexpected_ends),
            "workers that did not stop on SIGTERM": self.stuck_stops,
        }


def run(plan: Plan, folder: Path, say: Callable[[str], None] = lambda _progress: None) -> Report:
    """Run a plan; logs, data and records stay in ``folder``, which must be empty.

    Raises:
        TimeoutError: the workers did not start.
        EmbeddedError: Valkey did not start.
    """
    with contextlib.ExitStack() as stack:
        system = System.start(folder, stack)
        workers = system.start_workers(plan.workers, forward_ms=plan.forward_ms)
        faults = schedule(plan.seed, plan.faults, gap_s=plan.gap_s, longest_s=plan.longest_s, among=plan.kinds)
        # The last job is submitted after the last fault.
        lasts_s = (faults[-1].at_s if faults else 0.0) + plan.gap_s
        producers = system.start_producers(seed=plan.seed, total=plan.jobs, lasts_s=lasts_s)
        tally = Tally(system.results, system.executions, [producer.accepted for producer in producers])
        stack.callback(tally.close)
        waiters = stack.enter_context(
            Waiters(system.broker.url, system.results.url, seed=plan.seed, pictures=system.pictures_at)
        )
        accounts = Accounts(system.broker, system.results, tally, waiters)
        stack.callback(accounts.close)
        injector = Injector(
            faults,
            broker=system.broker,
            results=system.results,
            workers=workers,
            producers=producers,
            pictures=system.pictures,
            slow_pictures=system.slow_pictures,
            held=system.held,
            on_worker_lost=tally.deaths.update,
            on_worker_killed=tally.worker_killed,
            on_destroyed=accounts.note_destroyed,
        )
        duration_s = _watch(plan, injector, tally, accounts, waiters, say)
        # Workers may still try to answer running jobs again; only after that is it certain that no answer changed.
        for worker in workers:
            worker.process.stop(STOP_GRACE_S)
        tally.poll(duration_s)
        verdict = tally.judge()
        with system.broker.connect() as broker:
            lost_messages = whereabouts(broker, verdict.lost)
        return Report(
            plan=plan,
            duration_s=duration_s,
            accepted=len(tally.accepted),
            answered=tally.answered,
            faults=injector.done,
            verdict=verdict,
            lost_messages=lost_messages,
            looks=accounts.looks,
            hidden=accounts.hidden,
            falsely_unknown=accounts.falsely_unknown,
            not_told=accounts.not_told | waiters.waiting,
            told=accounts.told,
            slowest_told_s=accounts.slowest_told_s,
            waiters_failures=waiters.failures,
            destroyed=tally.destroyed,
            unexpected_ends=injector.unexpected,
            stuck_stops=injector.stuck,
            most_in_hand=injector.most_in_hand,
            runs=tally.runs,
            recoveries=tally.recoveries(),
            disturbances=injector.disturbances,
        )


def _watch(
    plan: Plan, injector: Injector, tally: Tally, accounts: Accounts, waiters: Waiters, say: Callable[[str], None]
) -> float:
    """Drive the run to its end; return how long it took, in seconds."""
    started_s = time.monotonic()
    answered, last_news_s, looked_at_s = 0, 0.0, 0.0
    while True:
        now_s = time.monotonic() - started_s
        injector.tick(now_s)
        tally.poll(now_s)
        waiters.follow(job_id for job_id in tally.take_accepted() if jobs.is_of_our_client(job_id))
        accounts.tick()
        if now_s - looked_at_s >= LOOK_EVERY_S:
            looked_at_s = now_s
            accounts.look(now_s, is_quiet=injector.is_quiet)
        if tally.answered > answered or not injector.is_quiet:
            answered, last_news_s = tally.answered, now_s
        say(
            f"{now_s:5.0f} s  {len(tally.accepted):,} of {plan.jobs:,} jobs accepted, {tally.unanswered:,} unanswered, "
            f"{injector.done.total()} of {plan.faults} faults"
        )
        is_done = not tally.unanswered and not waiters.waiting
        if injector.is_quiet and (is_done or now_s - last_news_s > plan.patience_s):
            return now_s
        time.sleep(TICK_S)
