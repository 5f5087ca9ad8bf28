"""Records which jobs of a run were accepted, run and answered, and when, over a connection without faults."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from producer.contract.names import answer_key
from producer.operations.answers import Answer
from tests.chaos.destruction import Destroyed
from tests.chaos.jobs import mistakes, number_of
from tests.chaos.servers import Server

CHUNK = 500
#: The default of `NAMESHOT_MAX_ATTEMPTS`, which the harness does not change.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class WorkerKill:
    """A ``kill -9`` of a worker, and the jobs that it had in hand."""

    pid: int
    at_s: float
    in_hand: frozenset[str]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of the jobs that a killed worker had in hand.

    Attributes:
        at_s: When the worker was killed.
        elsewhere_s: Seconds until the last of the jobs was taken by another worker, or answered; None if that never
            happened.
        seconds: Seconds until the last of the jobs was answered, although other faults may have hit its next workers;
            None if that never happened.
    """

    at_s: float
    elsewhere_s: float | None
    seconds: float | None

    def met(self, disturbances: Iterable[tuple[float, float]]) -> bool:
        """Return whether another fault overlapped with the recovery; a fault is a pair of its start and end."""
        until_s = self.at_s + (self.seconds or 0.0)
        return any(start_s < until_s and end_s > self.at_s for start_s, end_s in disturbances if start_s != self.at_s)


@dataclass(frozen=True, slots=True)
class Seen:
    """The first terminal answer that the tally read for a job."""

    payload: bytes
    at_s: float


class Lines:
    """Iterates over the complete lines that were added to a file since the last iteration."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0

    def __iter__(self) -> Iterator[str]:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        yield from complete.decode().splitlines()


class Tally:
    """Counts what happens to the jobs; the main thread calls `poll` several times a second.

    The tally notices that a terminal answer was replaced if it read the first answer at a poll and the other at the
    end.

    Args:
        results: The result backend.
        executions: The file in which null workers record what they take and run.
        accepted: The files in which producers record what was accepted.

    Attributes:
        accepted: ids whose submission returned.
        gone: when each id was destroyed that was neither answered nor sent again since. All times by id are by
            `time.monotonic`.
        gone_until_s: when each id was answered or sent again after it was destroyed.
        destroyed: how many messages and answers were destroyed in all.
        deaths: how many workers died with each job in hand.
        runs: how often each single job's image was embedded.
        kills: see `worker_killed`.
    """

    def __init__(self, results: Server, executions: Path, accepted: Iterable[Path]) -> None:
        self.accepted: set[str] = set()
        self.gone: dict[str, float] = {}
        self.gone_until_s: dict[str, float] = {}
        self.destroyed: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.kills: list[WorkerKill] = []
        self._first: dict[str, Seen] = {}
        self._waiting: set[str] = set()
        self._newly_accepted: set[str] = set()
        #: For each job, the process ids of the workers that took it, and when, in order.
        self._takers: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        self._executions = Lines(executions)
        self._accepted = [Lines(file) for file in accepted]
        self._results = results
        self._answers = results.connect()

    @property
    def answered(self) -> int:
        """The number of jobs with a terminal answer."""
        return len(self._first)

    @property
    def unanswered(self) -> int:
        """The number of accepted or taken jobs without a terminal answer."""
        return len(self._waiting)

    @property
    def alive(self) -> set[str]:
        """The accepted jobs that were neither answered nor destroyed, so that their messages must exist."""
        return (self._waiting & self.accepted) - self.gone.keys()

    def is_answered(self, job_id: str) -> bool:
        """Return whether the tally has read a terminal answer of the job."""
        return job_id in self._first

    def take_accepted(self) -> set[str]:
        """Return the jobs that were accepted since the last call."""
        new, self._newly_accepted = self._newly_accepted, set()
        return new

    def poll(self, now_s: float) -> bool:
        """Read what is new; return False while the result backend is down, in which case its answers are read later."""
        new: set[str] = set()
        for lines in self._accepted:
            new.update(lines)
        self.accepted |= new
        self._newly_accepted |= new
        self._waiting |= new - self._first.keys()
        for line in self._executions:
            job_id, pid, event = line.split()
            if event == "run":
                self.runs[job_id] += 1
            else:
                self._takers[job_id].append((int(pid), now_s))
                if job_id not in self._first:
                    self._waiting.add(job_id)
        if not self._results.is_reachable:
            return False
        try:
            for job_id, payload in self._terminal(sorted(self._waiting)):
                self._first[job_id] = Seen(payload, now_s)
                self._waiting.discard(job_id)
                self._back(job_id)
        except redis.RedisError:
            return False
        return True

    def note_destroyed(self, destroyed: Destroyed, now_s: float) -> None:
        """Expect no answer of these jobs until they are sent again, and forget answers that were destroyed."""
        self.poll(now_s)
        if destroyed.is_answer:
            self.destroyed["answers"] += len(destroyed.job_ids)
            for job_id in destroyed.job_ids:
                self._first.pop(job_id, None)
            self._waiting |= destroyed.job_ids
        else:
            self.destroyed["messages"] += len(destroyed.job_ids - self._first.keys())
        self.gone.update(dict.fromkeys(destroyed.job_ids - self._first.keys(), time.monotonic()))

    def sent_again(self, job_id: str, since_s: float) -> None:
        """Record that a call that began at ``since_s`` submitted the job again; a later destruction may have hit it."""
        if self.gone.get(job_id, math.inf) < since_s:
            self._back(job_id)

    def _back(self, job_id: str) -> None:
        if self.gone.pop(job_id, None) is not None:
            self.gone_until_s[job_id] = time.monotonic()

    def worker_killed(self, pid: int, now_s: float) -> None:
        """Record the unanswered jobs that a worker held that was just killed: those that it was the last to take."""
        self.poll(now_s)
        in_hand = {job_id for job_id in self._waiting if self._takers[job_id] and self._takers[job_id][-1][0] == pid}
        self.kills.append(WorkerKill(pid, now_s, frozenset(in_hand)))

    def recoveries(self) -> list[Recovery]:
        """Return a `Recovery` for each killed worker that held jobs."""
        return [
            Recovery(
                kill.at_s,
                _last(self._elsewhere(job_id, kill) for job_id in kill.in_hand),
                _last(self._answered_after(job_id, kill) for job_id in kill.in_hand),
            )
            for kill in self.kills
            if kill.in_hand
        ]

    def _answered_after(self, job_id: str, kill: WorkerKill) -> float | None:
        seen = self._first.get(job_id)
        return None if seen is None else seen.at_s - kill.at_s

    def _elsewhere(self, job_id: str, kill: WorkerKill) -> float | None:
        taken_s = [at_s - kill.at_s for pid, at_s in self._takers[job_id] if pid != kill.pid and at_s >= kill.at_s]
        answered_s = self._answered_after(job_id, kill)
        return min([*taken_s, *([] if answered_s is None else [answered_s])], default=None)

    def judge(self) -> Verdict:
        """Compare the final answers with those first read, and with the right ones.

        Raises:
            redis.RedisError: Valkey does not answer.
        """
        final = dict(self._terminal(sorted(self.accepted | self._first.keys())))
        lost = [job_id for job_id in self.accepted if job_id not in final]
        changed = [job_id for job_id, seen in self._first.items() if final.get(job_id) != seen.payload]
        failed: Counter[str] = Counter()
        wrong: dict[str, str] = {}
        unlucky: list[str] = []
        for job_id, payload in final.items():
            answer = Answer.from_meta(payload, job_id)
            if answer.state != "succeeded":
                failed[getattr(answer.error, "code", answer.state)] += 1
            found = mistakes(answer, number_of(job_id))
            if found and set(found) == {"poisoned"} and self.deaths[job_id] >= MAX_ATTEMPTS:
                unlucky.append(job_id)
            elif found:
                wrong[job_id] = ", ".join(sorted(set(found)))
        return Verdict(lost, changed, wrong, failed, unlucky)

    def _terminal(self, job_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(job_ids), CHUNK):
            chunk = job_ids[start : start + CHUNK]
            payloads: list[bytes | None] = self._answers.mget([answer_key(job_id) for job_id in chunk])  # type: ignore[assignment]
            for job_id, payload in zip(chunk, payloads, strict=True):
                if payload is not None and Answer.from_meta(payload, job_id).is_terminal:
                    yield job_id, payload

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()


def _last(seconds: Iterable[float | None]) -> float | None:
    """Return the longest duration; None if one of them is None."""
    each = list(seconds)
    return None if None in each else max(value for value in each if value is not None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of all jobs, as ids.

    Attributes:
        lost: accepted jobs without a terminal answer.
        changed: jobs whose terminal answer at the end is not the first one.
        wrong: jobs with a wrong ranking or a failure that is not retryable, and what was wrong. No job harms workers,
            so ``poisoned`` counts as wrong, except for `unlucky` jobs.
        failed: how many terminal answers are failures, by code.
        unlucky: jobs that were rightly answered ``poisoned``, because the harness killed three workers that held them.
    """

    lost: list[str]
    changed: list[str]
    wrong: dict[str, str]
    failed: Counter[str]
    unlucky: list[str]

    @property
    def poisoned(self) -> list[str]:
        """The jobs that were wrongly answered ``poisoned``."""
        return [job_id for job_id, how in self.wrong.items() if "poisoned" in how]
