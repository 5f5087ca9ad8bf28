"""Watches a run over a connection that no fault touches: what was accepted, run and answered, and when."""

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
#: `NAMESHOT_MAX_ATTEMPTS`, as it is without a word of the harness.
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
        at_s: when it was killed.
        elsewhere_s: seconds until the last of them was taken by another worker, or answered; None: never.
        seconds: until the last of them was answered; other faults may have met its next workers. None: never.
    """

    at_s: float
    elsewhere_s: float | None
    seconds: float | None

    def met(self, disturbances: Iterable[tuple[float, float]]) -> bool:
        """Whether another fault came or lasted meanwhile: from and until when each of them did."""
        until_s = self.at_s + (self.seconds or 0.0)
        return any(start_s < until_s and end_s > self.at_s for start_s, end_s in disturbances if start_s != self.at_s)


@dataclass(frozen=True, slots=True)
class Seen:
    """The first terminal answer that was seen for a job."""

    payload: bytes
    at_s: float


class Lines:
    """The complete lines that were added to a file since the last reading."""

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
    """Counts what happens to the jobs; `poll` it several times a second.

    A terminal answer that another one replaces is noticed whenever both were there at a poll, or one at a poll and
    the other at the end.

    Args:
        results: the server of the answers.
        executions: the file in which null workers note what they take and run.
        accepted: the files in which producers note what was accepted.

    Attributes:
        accepted: ids whose submission returned.
        gone: ids that were destroyed, and neither answered nor sent again since, with when that was. All times that are
            kept by id are `time.monotonic`'s.
        gone_until_s: when each was that was gone for a time.
        destroyed: how many messages and answers were destroyed in all.
        deaths: workers that were lost with each job in hand.
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
        #: Who took each job, and when, in order.
        self._takers: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        self._executions = Lines(executions)
        self._accepted = [Lines(file) for file in accepted]
        self._results = results
        self._answers = results.connect()

    @property
    def answered(self) -> int:
        """Jobs with a terminal answer."""
        return len(self._first)

    @property
    def unanswered(self) -> int:
        """Accepted or taken jobs without one."""
        return len(self._waiting)

    @property
    def alive(self) -> set[str]:
        """Accepted jobs without an answer that nobody has destroyed: each has to be somewhere."""
        return (self._waiting & self.accepted) - self.gone.keys()

    def is_answered(self, job_id: str) -> bool:
        """Whether the job has a terminal answer, as far as is known."""
        return job_id in self._first

    def take_accepted(self) -> set[str]:
        """What was accepted since this was asked last."""
        new, self._newly_accepted = self._newly_accepted, set()
        return new

    def poll(self, now_s: float) -> bool:
        """Read what is new; False while the results' server is away, whose part waits for the next poll."""
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
        """Expect no answer of these jobs until they are sent again, or no longer the one that stood."""
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
        """It was accepted anew, by a call that began then; what was destroyed afterwards may have been this message."""
        if self.gone.get(job_id, math.inf) < since_s:
            self._back(job_id)

    def _back(self, job_id: str) -> None:
        if self.gone.pop(job_id, None) is not None:
            self.gone_until_s[job_id] = time.monotonic()

    def worker_killed(self, pid: int, now_s: float) -> None:
        """Note what a worker that was just killed was the last to take, and had not answered."""
        self.poll(now_s)
        in_hand = {job_id for job_id in self._waiting if self._takers[job_id] and self._takers[job_id][-1][0] == pid}
        self.kills.append(WorkerKill(pid, now_s, frozenset(in_hand)))

    def recoveries(self) -> list[Recovery]:
        """One for each kill, but for those that hit an idle worker."""
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
        """Compare the answers as they stand now with those first seen, and with those that are right.

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
    """The longest; None where one never ended."""
    each = list(seconds)
    return None if None in each else max(value for value in each if value is not None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the jobs.

    Attributes:
        lost: accepted, and without a terminal answer.
        changed: had another terminal answer, or one more, than stands at the end.
        wrong: succeeded with a ranking that the picture and labels do not have, or failed for good; and how. No job
            is to blame for anything, so that ``poisoned`` is among them, but for the unlucky.
        failed: terminal answers that are no success, by code.
        unlucky: were found to be poison, as has to be said of what was in the hands of three workers that were killed.
    """

    lost: list[str]
    changed: list[str]
    wrong: dict[str, str]
    failed: Counter[str]
    unlucky: list[str]

    @property
    def poisoned(self) -> list[str]:
        """Jobs that were found guilty of deaths."""
        return [job_id for job_id, how in self.wrong.items() if "poisoned" in how]
