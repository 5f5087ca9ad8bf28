"""The state of jobs: answered, running, queued, or ``unknown`` once neither message nor answer is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from producer.contract.names import answer_key, claim_and_place, forgotten_key
from producer.errors import BrokerUnavailable
from producer.operations.answers import ANY_LIFE, Answer
from producer.operations.exchanges import Call, Operation, Together
from producer.operations.traces import LOST, JobTraces
from producer.operations.whereabouts import Snapshot, locate, locate_missing

#: Records that jobs are lost, except those whose ids have since been freed or submitted again.
#: KEYS: the claim key and the place key of each job. ARGV: for each job the values of both as the caller read them,
#: empty without a claim, and the new value of the place key.
#: Returns the number of each job that it recorded as lost, counted from 1.
_RECORD_LOST: Final = """
local recorded = {}
for i = 1, #KEYS / 2 do
  local claim, place, new = unpack(ARGV, 3 * i - 2, 3 * i)
  if redis.call('GET', KEYS[2 * i]) == place and (redis.call('GET', KEYS[2 * i - 1]) or '') == claim then
    redis.call('SET', KEYS[2 * i], new, 'KEEPTTL')
    recorded[#recorded + 1] = i
  end
end
return recorded
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of one job.

    Attributes:
        traces: the broker's records of the job; not read for an answered job.
        ahead: how many messages are ahead of the job's message, or None if the message does not wait.
        is_doubtful: whether the job may be lost although its queue's counter has not reached its number.
    """

    answer: Answer
    traces: JobTraces = field(default_factory=JobTraces)
    ahead: int | None = None
    is_doubtful: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether neither message nor answer of the job is left, so that its id may be used again."""
        return self.answer.state == "unknown" and not self.answer.is_deleted


def look_up(prefix: str, job_ids: Sequence[str]) -> Operation[dict[str, Answer]]:
    """Return each job's current answer."""
    found = yield from examine(prefix, job_ids)
    return {job_id: standing.answer for job_id, standing in found.items()}


@dataclass(frozen=True, slots=True)
class KnownAnswers:
    """The answers that a waiting client could read.

    Attributes:
        answers: each job's current answer; if the broker is down, only the terminal answers.
        fault: the error of a broker that is down, so that the other jobs may or may not exist; otherwise None.
    """

    answers: Mapping[str, Answer]
    fault: BrokerUnavailable | None = None


def known_answers(prefix: str, job_ids: Sequence[str]) -> Operation[KnownAnswers]:
    """Look up jobs as `look_up` does, but return the terminal answers even if the broker is down."""
    answers = yield from _answers(job_ids)
    try:
        found = yield from examine_unanswered(prefix, answers)
    except BrokerUnavailable as error:
        return KnownAnswers({job_id: answer for job_id, answer in answers.items() if answer.is_settled}, error)
    return KnownAnswers({job_id: standing.answer for job_id, standing in found.items()})


def position(prefix: str, job_id: str) -> Operation[int | None]:
    """Return how many messages are ahead of a job's message, or None if the job does not wait."""
    return (yield from examine(prefix, [job_id]))[job_id].ahead


def examine(prefix: str, job_ids: Sequence[str]) -> Operation[dict[str, Standing]]:
    """Return the states of jobs by their ids.

    At any moment an accepted job waits in its queue, is held or postponed by a worker, or has an answer. The operation
    reads the answers first, and then the broker, in one transaction. If the broker does not have a job, the operation
    reads its answer again: a worker may have answered the job and acknowledged the message in between.
    """
    return (yield from examine_unanswered(prefix, (yield from _answers(job_ids))))


def examine_unanswered(prefix: str, answers: dict[str, Answer]) -> Operation[dict[str, Standing]]:
    """Return the states of jobs as `examine` does, after the caller has read the stored answers.

    Args:
        answers: the stored answer of each job, ``unknown`` if there is none.
    """
    found = {job_id: Standing(answer) for job_id, answer in answers.items() if answer.is_settled}
    if unanswered := [job_id for job_id in answers if job_id not in found]:
        snapshot = yield from locate(prefix, unanswered)
        freed = yield from _freed({job_id: snapshot.traces[job_id] for job_id in unanswered}, answers)
        missing = []
        for job_id in unanswered:
            traces, ahead = snapshot.traces[job_id], snapshot.ahead(job_id)
            if job_id in freed:
                found[job_id] = Standing(Answer("unknown"))
            elif _has_expired(answers[job_id], snapshot, job_id):
                # A worker will store this answer when it takes the message, but perhaps no worker runs.
                found[job_id] = Standing(Answer.of_expired(job_id), traces)
            elif traces.is_held:
                found[job_id] = Standing(_begun(answers[job_id]), traces)
            elif ahead is not None:
                # A waiting job is queued, even if a worker that has died stored that it runs. Workers of an older
                # version do not count the messages that they take, so while they run the stored state decides.
                state = _begun(answers[job_id]) if snapshot.is_mixed else Answer("queued")
                found[job_id] = Standing(state, traces, ahead, snapshot.is_beyond(job_id))
            else:
                missing.append(job_id)
        if missing:
            lives = {job_id: snapshot.traces[job_id].life for job_id in missing}
            found |= yield from _examine_missing(prefix, lives, answers)
    return {job_id: found[job_id] for job_id in answers}


def _has_expired(answer: Answer, snapshot: Snapshot, job_id: str) -> bool:
    """Return whether a job expired before any worker began it.

    A worker that was cut off from Redis, so that another requeued its job, may still answer the job that it began.
    """
    waits = snapshot.traces[job_id].is_held or snapshot.ahead(job_id) is not None
    return answer.state != "running" and waits and snapshot.is_expired(job_id)


def _freed(traces: Mapping[str, JobTraces], answers: Mapping[str, Answer]) -> Operation[set[str]]:
    """Return which ids were freed although a worker still holds the earlier message, which it will not answer."""
    held = [
        job_id
        for job_id, its in traces.items()
        if its.claim is None and its.hand is not None and answers[job_id].state != "running"
    ]
    if not held:
        return set()
    commands = tuple(("ZMSCORE", forgotten_key(job_id), "", ANY_LIFE) for job_id in held)
    scores = yield Together("results", commands, may_fail=True)
    return {job_id for job_id, its in zip(held, scores or (), strict=False) if any(its or ())}


def _examine_missing(
    prefix: str, lives: Mapping[str, str], answers: dict[str, Answer]
) -> Operation[dict[str, Standing]]:
    thorough = yield from locate_missing(prefix, lives)
    found, gone = {}, []
    for job_id in lives:
        traces, ahead = thorough.snapshot.traces[job_id], thorough.snapshot.ahead(job_id)
        has_begun = answers[job_id].state == "running"
        is_ours = traces.claim is not None or has_begun
        if traces.is_held or ahead is not None:
            # The job was submitted or requeued after the first snapshot.
            found[job_id] = Standing(_begun(answers[job_id]), traces, ahead)
        elif is_ours and thorough.may_exist(job_id, has_begun=has_begun):
            found[job_id] = Standing(_begun(answers[job_id]), traces)
        else:
            gone.append(job_id)
    late = yield from _answers(gone)
    lost = {job_id: thorough.snapshot.traces[job_id] for job_id in gone if not late[job_id].is_settled}
    lost |= yield from _record_lost(prefix, lost)
    for job_id, answer in late.items():
        state = Answer("unknown") if job_id in lost else answer
        found[job_id] = Standing(state, lost.get(job_id, thorough.snapshot.traces[job_id]))
    return found


def _record_lost(prefix: str, lost: Mapping[str, JobTraces]) -> Operation[dict[str, JobTraces]]:
    """Record that jobs are lost, so that they remain lost; return the new records of those jobs.

    With a Redis user that has no permission to write, nothing is recorded.
    """
    new = {
        job_id: replace(traces, place=b" ".join((traces.place.split(b" ")[0], LOST.encode(), traces.life.encode())))
        for job_id, traces in lost.items()
        if traces.place is not None and traces.locations and not traces.is_stray
    }
    if not new:
        return {}
    keys = [key for job_id in new for key in claim_and_place(prefix, job_id)]
    seen = [value for job_id, traces in new.items() for value in (*lost[job_id].as_seen, traces.place or b"")]
    recorded = yield Call("broker", ("EVAL", _RECORD_LOST, len(keys), *keys, *seen), may_fail=True)
    job_ids = tuple(new)
    return {job_ids[number - 1]: new[job_ids[number - 1]] for number in recorded or ()}


def _answers(job_ids: Sequence[str]) -> Operation[dict[str, Answer]]:
    """Return the stored answers, with ``unknown`` for a job that has none."""
    if not job_ids:
        return {}
    found = yield Call("results", ("MGET", *(answer_key(job_id) for job_id in job_ids)))
    return read_answers(job_ids, found)


def read_answers(job_ids: Sequence[str], payloads: Sequence[bytes | None]) -> dict[str, Answer]:
    """Parse the stored answers of jobs, with ``unknown`` for a job that has none."""
    return {
        job_id: Answer("unknown") if payload is None else Answer.from_meta(payload, job_id)
        for job_id, payload in zip(job_ids, payloads, strict=True)
    }


def _begun(answer: Answer) -> Answer:
    """Return the answer of a job whose message exists: running if a worker has stored that state, otherwise queued."""
    return answer if answer.state == "running" else Answer("queued")
