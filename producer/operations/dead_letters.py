"""Dead letters: jobs that killed workers and messages that nobody could read, to be looked at and sent again.

Workers write them (`worker.delivery.dead_letters`). A record says which job, when and why, and never what was asked;
the message itself lies apart, byte by byte, for `replay_letter`. See `producer.operations.exchanges` for what an
operation is.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from producer.contract import (
    QUEUES,
    SENT_AT_HEADER,
    Queue,
    claim_key,
    dead_letter_messages_key,
    dead_letters_key,
    place_key,
    queue_name,
    rung_name,
    step_names,
)
from producer.errors import NameshotError
from producer.messages.envelope import canonical_json
from producer.messages.submission import LONGEST_WAIT_S, fingerprint
from producer.operations.exchanges import RETRY_AFTER_S, Call, Operation, queue_full
from producer.operations.submitting import OPEN_QUEUE, queue_keys

#: A message whose ``expires`` is nearer than this, or has passed, would go the way of all that expires while it waits.
LEAST_LEFT: Final = timedelta(minutes=5)

#: Puts a dead letter's message back, once: a reply that was lost may be asked for again.
#: KEYS: those of the queue, the new job's claim and place, the records, their messages. ARGV: most waiting messages;
#: the queue's short name; the fingerprint, the claim's life in seconds, the message's life, the message; the letter,
#: its record as it stands. Returns what became of it.
_REPLAY: Final = (
    OPEN_QUEUE
    + """
local claim, place, records, messages = unpack(KEYS, 22)
if redis.call('GET', claim) == ARGV[3] then return 'replayed' end
if redis.call('HEXISTS', messages, ARGV[7]) == 0 then return 'gone' end
local queue = open(1)
if queue.ahead + queue.steps >= tonumber(ARGV[1]) then return 'full' end
redis.call('LREM', records, 1, ARGV[8])
redis.call('HDEL', messages, ARGV[7])
push(queue, ARGV[2], claim, place, unpack(ARGV, 3, 6))
return 'replayed'
"""
)


class DeadLetterError(NameshotError):
    """There is no such dead letter, or it cannot be replayed."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A letter's new job.

    Attributes:
        lost_expires: whether its message would have expired, and does so no more.
    """

    job_id: str
    lost_expires: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record.

    Attributes:
        letter: its own id.
        job_id: None where the message does not say.
        image: for one image of a bulk job, its number.
        task: None where it is not one of ours.
        queue: the Redis list that the message waited in.
        code: ``poisoned``, ``malformed``, or ``unanswerable``: its answer's key holds something else.
        deaths: workers that died with it in hand.
        size_bytes: of the message.
        at: when it was given up, ISO 8601 in UTC.
        record: all that as it stands in the list.
    """

    letter: str
    job_id: str | None
    image: int | None
    task: str | None
    queue: str
    code: str
    deaths: int
    size_bytes: int
    at: str
    record: bytes

    @classmethod
    def from_record(cls, record: bytes) -> DeadLetter:
        """Read what a worker wrote; raises `DeadLetterError`."""
        try:
            fields = json.loads(record)
            return cls(
                letter=fields["letter"],
                job_id=fields["id"],
                image=fields.get("image"),
                task=fields["task"],
                queue=fields["queue"],
                code=fields["code"],
                deaths=fields["deaths"],
                size_bytes=fields["bytes"],
                at=fields["at"],
                record=record,
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DeadLetterError(
                "the list of dead letters holds something else too; check that nothing else uses its key."
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The record for people and programs; ``image`` only where it is one of many."""
        image = {} if self.image is None else {"image": self.image}
        return {
            "letter": self.letter,
            "id": self.job_id,
            **image,
            "task": self.task,
            "queue": self.queue,
            "code": self.code,
            "deaths": self.deaths,
            "bytes": self.size_bytes,
            "at": self.at,
        }


def list_letters(prefix: str) -> Operation[list[DeadLetter]]:
    """All dead letters, newest first; raises `DeadLetterError` for what is none."""
    records = yield Call("broker", ("LRANGE", dead_letters_key(prefix), 0, -1))
    return [DeadLetter.from_record(record) for record in records]


def find_letters(prefix: str, wanted: Sequence[str]) -> Operation[list[DeadLetter]]:
    """The letters of those ids, in their order.

    Raises:
        DeadLetterError: there is none of an id.
    """
    found = {letter.letter: letter for letter in (yield from list_letters(prefix))}
    if missing := [letter for letter in wanted if letter not in found]:
        raise _no_such(missing[0])
    return [found[letter] for letter in wanted]


def replay_letter(prefix: str, letter: DeadLetter, *, result_ttl_s: int, max_queue: int) -> Operation[Replayed]:
    """Put a letter's message back on its queue as a new job, and remove the letter.

    The old id keeps its answer. Suspicion goes by id, so that the new job has its full number of attempts. Of a bulk
    job with one poisoned image, the new job asks about that image only.

    Raises:
        DeadLetterError: it is malformed, or there no more.
        QueueFull: its queue holds ``max_queue`` waiting messages; the letter stays.
    """
    check_replayable(letter)
    queue = _queue_of(prefix, letter)
    records, messages = dead_letters_key(prefix), dead_letter_messages_key(prefix)
    message = yield Call("broker", ("HGET", messages, letter.letter))
    if message is None:
        raise _no_such(letter.letter)
    job_id, life = str(uuid4()), str(uuid4())
    written, digest, lost_expires = _as_new_job(message, letter, job_id, life)
    keys = (*queue_keys(prefix, queue), claim_key(prefix, job_id), place_key(prefix, job_id), records, messages)
    claim_ttl_s = result_ttl_s + LONGEST_WAIT_S
    arguments = (max_queue, queue, digest, claim_ttl_s, life, written, letter.letter, letter.record)
    doubt = f" Letter {letter.letter} may have been replayed as job {job_id}."
    outcome = yield Call("broker", ("EVAL", _REPLAY, len(keys), *keys, *arguments), doubt)
    if outcome == b"full":
        advice = f"letter {letter.letter} stays, try again in {RETRY_AFTER_S:g} s."
        raise queue_full(letter.queue, max_queue, advice)
    if outcome == b"gone":
        raise _no_such(letter.letter)
    return Replayed(job_id, lost_expires=lost_expires)


def check_replayable(letter: DeadLetter) -> None:
    """Raise `DeadLetterError` for a message that would be refused again."""
    if letter.code == "malformed":
        raise DeadLetterError(
            f"letter {letter.letter} is malformed and cannot be replayed: no worker could read it either; "
            "correct the program that sent it."
        )


def _queue_of(prefix: str, letter: DeadLetter) -> Queue:
    """The queue in which a letter's message waited, itself or in a list of its own."""
    for queue in QUEUES:
        name = queue_name(prefix, queue)
        if letter.queue in (name, rung_name(name), *step_names(name)):
            return queue
    raise DeadLetterError(
        f"letter {letter.letter} waited in {letter.queue[:50]!r}, which is no queue of {prefix!r}; "
        "replay it with the NAMESHOT_QUEUE_PREFIX that it was sent with."
    )


def _as_new_job(message: bytes, letter: DeadLetter, job_id: str, life: str) -> tuple[str, str, bool]:
    """The message under another id, the fingerprint that claims it, and whether it lost its ``expires``.

    The message is as its sender wrote it, which may be short: see docs/wire-format.md.
    """
    try:
        envelope = json.loads(message)
        headers, properties = envelope["headers"], envelope.get("properties") or {}
        headers["id"] = headers["root_id"] = properties["correlation_id"] = job_id
        properties["delivery_tag"] = life
        if SENT_AT_HEADER in headers:
            headers[SENT_AT_HEADER] = time.time()
        expires = _is_soon(headers.get("expires"))
        if expires:
            headers["expires"] = None
            properties.pop("expiration", None)
        is_base64 = properties.get("body_encoding") == "base64"
        body = base64.b64decode(envelope["body"], validate=True) if is_base64 else envelope["body"]
        args, kwargs, embed = json.loads(body)
        if letter.image is not None:
            kwargs["images"] = [kwargs["images"][letter.image]]
            body = json.dumps([args, kwargs, embed], separators=(",", ":"))
            envelope["body"] = base64.b64encode(body.encode()).decode() if is_base64 else body
        envelope["properties"] = properties
        return json.dumps(envelope), fingerprint(letter.task, canonical_json(kwargs)), expires
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DeadLetterError(
            f"letter {letter.letter} cannot be replayed, since its message is none that a worker reads; "
            "correct the program that sent it."
        ) from None


def _is_soon(expires: object) -> bool:
    """Whether a header ``expires`` has passed or will in a moment, or is none that a worker reads."""
    if expires is None:
        return False
    try:
        moment = datetime.fromisoformat(str(expires))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) < datetime.now(UTC) + LEAST_LEFT
    except (ValueError, OverflowError):
        return True


def _no_such(letter: str) -> DeadLetterError:
    return DeadLetterError(
        f"there is no dead letter {letter[:50]!r}, or it was replayed already; "
        "`nameshot dead-letters list` shows those there are."
    )
