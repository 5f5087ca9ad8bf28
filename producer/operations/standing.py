"""How jobs stand: answered, running, queued, or ``unknown`` once neither message nor answer is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from producer.contract import answer_key, claim_key, place_key
from producer.errors import BrokerUnavailable
from producer.operations.answers import Answer
from producer.operations.exchanges import Call, Operation
from producer.operations.whereabouts import LOST, JobTraces, look, look_closely

#: Notes that messages are lost, each unless its id was freed or sent again since that was seen. KEYS: for each job its
#: claim and its place. ARGV: for each both as they were seen, empty where there was no claim, and the place from now
#: on. Returns the number of each job of which it is noted.
_NOTE_LOST: Final = """
local noted = {}
for i = 1, #KEYS / 2 do
  local claim, place, new = unpack(ARGV, 3 * i - 2, 3 * i)
  if redis.call('GET', KEYS[2 * i]) == place and (redis.call('GET', KEYS[2 * i - 1]) or '') == claim then
    redis.call('SET', KEYS[2 * i], new, 'KEEPTTL')
    noted[#noted + 1] = i
  end
end
return noted
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """One job as it stands.

    Attributes:
        claim, place: what the broker holds of it; of an answered job they are not read.
        ahead: how many messages are before its own; None where it does not wait.
        is_doubtful: whether it may be lost, although its queue is not known to have passed it.
    """

    answer: Answer
    claim: bytes | None = None
    place: bytes | None = None
    ahead: int | None = None
    is_doubtful: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether its id may be used again, since neither message nor answer is left."""
        return self.answer.state == "unknown"

    @property
    def life(self) -> str:
        """By which its message is told from others of the same id; empty where that is not known."""
        return JobTraces(self.claim, self.place, None).life


def look_up(prefix: str, job_ids: Sequence[str]) -> Operation[dict[str, Answer]]:
    """Each job's answer as it stands."""
    found = yield from examine(prefix, job_ids)
    return {job_id: standing.answer for job_id, standing in found.items()}


@dataclass(frozen=True, slots=True)
class Glance:
    """What someone who waits gets to see.

    Attributes:
        answers: each job's answer as it stands; without the broker, of those only that are answered.
        fault: why the broker could not say whether the others exist; None where it could.
    """

    answers: Mapping[str, Answer]
    fault: BrokerUnavailable | None = None


def glance(prefix: str, job_ids: Sequence[str]) -> Operation[Glance]:
    """As `look_up`; while only the broker cannot be asked, answers can be read, and waited for, all the same."""
    answers = yield from _answers(job_ids)
    try:
        found = yield from _examine(prefix, answers)
    except BrokerUnavailable as error:
        return Glance({job_id: answer for job_id, answer in answers.items() if answer.is_terminal}, error)
    return Glance({job_id: standing.answer for job_id, standing in found.items()})


def position(prefix: str, job_id: str) -> Operation[int | None]:
    """How many messages are before a job's; None where it does not wait."""
    return (yield from examine(prefix, [job_id]))[job_id].ahead


def examine(prefix: str, job_ids: Sequence[str]) -> Operation[dict[str, Standing]]:
    """How jobs stand, by their ids.

    At any moment a job that was accepted waits in its queue, is held or was put aside by a worker, or has an answer.
    The broker is looked at in one step. For a job that is not there the answers are read again afterwards, since a
    worker answers before it lets a message go.
    """
    return (yield from _examine(prefix, (yield from _answers(job_ids))))


def _examine(prefix: str, answers: dict[str, Answer]) -> Operation[dict[str, Standing]]:
    found = {job_id: Standing(answer) for job_id, answer in answers.items() if answer.is_terminal}
    if unanswered := [job_id for job_id in answers if job_id not in found]:
        seen = yield from look(prefix, unanswered)
        missing = []
        for job_id in unanswered:
            traces, ahead = seen.traces[job_id], seen.ahead(job_id)
            if traces.is_held:
                found[job_id] = Standing(_begun(answers[job_id]), traces.claim, traces.place)
            elif ahead is not None:
                # It may have begun in the hands of a worker that died; one of an older version counts nothing.
                state = _begun(answers[job_id]) if seen.is_mixed else Answer("queued")
                found[job_id] = Standing(state, traces.claim, traces.place, ahead, seen.is_beyond(job_id))
            else:
                missing.append(job_id)
        if missing:
            lives = {job_id: seen.traces[job_id].life for job_id in missing}
            found |= yield from _examine_missing(prefix, lives, answers)
    return {job_id: found[job_id] for job_id in answers}


def _examine_missing(
    prefix: str, lives: Mapping[str, str], answers: dict[str, Answer]
) -> Operation[dict[str, Standing]]:
    close = yield from look_closely(prefix, lives)
    found, gone = {}, []
    for job_id in lives:
        traces, ahead = close.look.traces[job_id], close.look.ahead(job_id)
        has_begun = answers[job_id].state == "running"
        is_ours = traces.claim is not None or has_begun
        if traces.is_held or ahead is not None:
            # Submitted, or put back, since the first look.
            found[job_id] = Standing(_begun(answers[job_id]), traces.claim, traces.place, ahead)
        elif is_ours and close.may_be_somewhere(job_id, has_begun=has_begun):
            found[job_id] = Standing(_begun(answers[job_id]), traces.claim, traces.place)
        else:
            gone.append(job_id)
    late = yield from _answers(gone)
    lost = {job_id: close.look.traces[job_id] for job_id in gone if not late[job_id].is_terminal}
    places = yield from _note_lost(prefix, lost)
    for job_id, answer in late.items():
        traces = close.look.traces[job_id]
        state = answer if answer.is_terminal else Answer("unknown")
        found[job_id] = Standing(state, traces.claim, places.get(job_id, traces.place))
    return found


def _note_lost(prefix: str, lost: Mapping[str, JobTraces]) -> Operation[dict[str, bytes]]:
    """Have what is once known to be lost stay so; returns what stands in the places of those jobs from now on.

    Whoever may only look notes nothing.
    """
    new = {
        job_id: b" ".join((traces.place.split(b" ")[0], LOST.encode(), traces.life.encode()))
        for job_id, traces in lost.items()
        if traces.place is not None and traces.places and not traces.is_stray
    }
    if not new:
        return {}
    job_ids = tuple(new)  # in the order of ``lost``
    keys = [key for job_id in job_ids for key in (claim_key(prefix, job_id), place_key(prefix, job_id))]
    seen = [
        value for job_id in job_ids for value in (lost[job_id].claim or b"", lost[job_id].place or b"", new[job_id])
    ]
    noted = yield Call("broker", ("EVAL", _NOTE_LOST, len(keys), *keys, *seen), may_fail=True)
    return {job_ids[number - 1]: new[job_ids[number - 1]] for number in noted or ()}


def _answers(job_ids: Sequence[str]) -> Operation[dict[str, Answer]]:
    """What the result backend holds; ``unknown`` where it holds nothing."""
    if not job_ids:
        return {}
    found = yield Call("results", ("MGET", *(answer_key(job_id) for job_id in job_ids)))
    return {
        job_id: Answer("unknown") if payload is None else Answer.from_meta(payload, job_id)
        for job_id, payload in zip(job_ids, found, strict=True)
    }


def _begun(answer: Answer) -> Answer:
    """The answer of a job whose message exists: running where a worker has said so, otherwise queued."""
    return answer if answer.state == "running" else Answer("queued")
