"""One run: the system, its producers and the faults, until all is answered or patience ends."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from producer.embedded import RunningValkey
from tests.acceptance.origin import Origin
from tests.chaos import jobs
from tests.chaos.faults import FREEZE_S, Kind, schedule
from tests.chaos.injector import Injector
from tests.chaos.processes import ProducerPlace, WorkerPlace
from tests.chaos.proxy import Switchboard
from tests.chaos.tally import Recovery, Tally, Verdict
from tests.chaos.whereabouts import whereabouts

PRODUCERS = ("client", "client", "plain")
#: Faults are done and undone, and answers seen, to this precision.
TICK_S = 0.2
START_TIMEOUT_S = 60.0
STOP_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; the same plan draws the same faults.

    Attributes:
        gap_s: mean time between two faults. The jobs are spread over the time that all faults take.
        forward_ms: a forward pass; long enough that a worker has jobs in hand when it is killed.
        patience_s: without any new answer, once the faults are over, until the rest counts as lost.
        kinds: of faults, to draw from.
    """

    jobs: int = 10_000
    faults: int = 200
    seed: int = 1
    workers: int = 3
    gap_s: float = 3.0
    max_freeze_s: float = FREEZE_S[1]
    forward_ms: float = 200.0
    patience_s: float = 60.0
    kinds: frozenset[Kind] = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Report:
    """What was counted.

    Attributes:
        lost_messages: where the messages of lost jobs lie; see `whereabouts`.
        unexpected_ends: processes that ended without a fault, and how.
        stuck_stops: workers that had to be killed after SIGTERM.
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
    unexpected_ends: list[str]
    stuck_stops: int
    runs: Counter[str]
    recoveries: list[Recovery]
    disturbances: list[tuple[float, float]]


def run(plan: Plan, folder: Path, say: Callable[[str], None] = lambda _progress: None) -> Report:
    """Run a plan; logs, data and notes are left in ``folder``, which is empty before.

    Raises:
        TimeoutError: the workers did not start.
        EmbeddedError: Valkey did not start.
    """
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(RunningValkey(folder, persistent=True))
        switchboard = stack.enter_context(Switchboard())
        origin = stack.enter_context(Origin())
        origin.pages.update(jobs.pages())
        system = System(folder, valkey, switchboard, origin, stack)
        workers = system.start_workers(plan)
        faults = schedule(plan.seed, plan.faults, gap_s=plan.gap_s, max_freeze_s=plan.max_freeze_s, among=plan.kinds)
        # The last job comes after the last fault.
        producers = system.start_producers(plan, (faults[-1].at_s if faults else 0.0) + plan.gap_s)
        tally = Tally(valkey, system.executions, [producer.accepted for producer in producers])
        stack.callback(tally.close)
        injector = Injector(
            faults, valkey=valkey, workers=workers, producers=producers, on_worker_killed=tally.worker_killed
        )
        duration_s = _watch(plan, injector, tally, say)
        # What a worker still runs may try to answer once more; only then can it be said that no answer changed.
        for worker in workers:
            worker.process.stop(STOP_GRACE_S)
        tally.poll(duration_s)
        verdict = tally.judge()
        with redis.Redis.from_url(valkey.broker_url) as broker:
            lost_messages = whereabouts(broker, verdict.lost)
        return Report(
            plan=plan,
            duration_s=duration_s,
            accepted=len(tally.accepted),
            answered=tally.answered,
            faults=injector.done,
            verdict=verdict,
            lost_messages=lost_messages,
            unexpected_ends=injector.unexpected,
            stuck_stops=injector.stuck,
            runs=tally.runs,
            recoveries=tally.recoveries(),
            disturbances=injector.disturbances,
        )


@dataclass(frozen=True, slots=True)
class System:
    """What workers and producers are started on; the stack ends them."""

    folder: Path
    valkey: RunningValkey
    switchboard: Switchboard
    origin: Origin
    stack: contextlib.ExitStack

    @property
    def executions(self) -> Path:
        """Where null workers note what they take and run."""
        return self.folder / "executions"

    def start_workers(self, plan: Plan) -> list[WorkerPlace]:
        """Start all workers and wait until they take jobs; raises `TimeoutError`."""
        settings = {
            "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{self.origin.port}",
            "NAMESHOT_MAX_BATCH": "8",
            "NAMESHOT_CONCURRENCY": "16",
            "NULL_FORWARD_MS": str(plan.forward_ms),
            "NULL_EXECUTIONS": str(self.executions),
        }
        workers: list[WorkerPlace] = []
        for number in range(plan.workers):
            line = self.switchboard.line(self.valkey.port)
            workers.append(WorkerPlace(number, valkey=self.valkey, line=line, settings=settings, folder=self.folder))
            self.stack.callback(workers[-1].kill)
        _wait_until_ready(workers)
        return workers

    def start_producers(self, plan: Plan, duration_s: float) -> list[ProducerPlace]:
        """Start all producers, which spread the jobs over ``duration_s`` seconds from now."""
        arguments = {
            "--seed": plan.seed,
            "--jobs": plan.jobs,
            "--shares": len(PRODUCERS),
            "--first-at": time.time(),
            "--every-s": duration_s / plan.jobs,
            "--pictures": self.origin.url(""),
        }
        producers: list[ProducerPlace] = []
        for number, kind in enumerate(PRODUCERS):
            words = [str(word) for pair in {**arguments, "--share": number}.items() for word in pair]
            line = self.switchboard.line(self.valkey.port)
            producers.append(ProducerPlace(number, kind, words, valkey=self.valkey, line=line, folder=self.folder))
            self.stack.callback(producers[-1].kill)
        return producers


def _watch(plan: Plan, injector: Injector, tally: Tally, say: Callable[[str], None]) -> float:
    """Drive the run to its end; returns how long it took, seconds."""
    started_s = time.monotonic()
    answered, last_news_s = 0, 0.0
    while True:
        now_s = time.monotonic() - started_s
        injector.tick(now_s)
        tally.poll(now_s)
        if tally.answered > answered or not injector.is_quiet:
            answered, last_news_s = tally.answered, now_s
        say(
            f"{now_s:5.0f} s  {len(tally.accepted):,} of {plan.jobs:,} jobs accepted, {tally.unanswered:,} unanswered, "
            f"{injector.done.total()} of {plan.faults} faults"
        )
        if injector.is_quiet and (not tally.unanswered or now_s - last_news_s > plan.patience_s):
            return now_s
        time.sleep(TICK_S)


def _wait_until_ready(workers: list[WorkerPlace]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not all(worker.is_ready for worker in workers):
        ended = [worker.name for worker in workers if not worker.is_running]
        if ended or time.monotonic() > deadline_s:
            raise TimeoutError(f"not every worker started; ended: {', '.join(ended) or 'none'}")
        time.sleep(TICK_S)
