"""List, show and replay dead letters.

A dead letter is a job that killed workers, a message that no worker could read, or a job whose answer could not be
stored. Workers write dead letters (`worker.delivery.dead_letters`). A record holds the job's id, the time and the
reason, but never the URL or the labels; the message itself is stored separately, byte for byte, for `replay_letter`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any, Final, NamedTuple
from uuid import uuid4

from producer.contract import names
from producer.errors import NameshotError
from producer.messages.envelope import canonical_json
from producer.messages.submission import LONGEST_WAIT_S, fingerprint
from producer.operations.exchanges import RETRY_AFTER_S, Call, Operation, queue_full, server_time_us
from producer.operations.submitting import OPEN_QUEUE, queue_keys

#: A replay removes an ``expires`` that is nearer than this, because the job could expire again while it waits.
LEAST_LEFT_S: Final = 300

#: Maps fields of `DeadLetter` to their names in a record, if these differ.
_IN_RECORDS: Final = {"job_id": "id", "size_bytes": "bytes"}

#: Queues a dead letter's message as a new job. A caller that lost the reply may repeat the call: the script queues the
#: message only once.
#: KEYS: the keys of the queue, the new job's claim key and place key, the list of records, the hash of messages. ARGV:
#: the maximum of waiting messages, the queue's short name, the fingerprint, the claim's TTL in seconds, the message's
#: life, the message, the letter's id, its stored record, the second at which the message expires, '' if it never does.
#: Returns 'replayed', 'gone' or 'full'.
_REPLAY: Final = (
    OPEN_QUEUE
    + """
local claim, place, records, messages = unpack(KEYS, 22)
if redis.call('GET', claim) == ARGV[3] then return 'replayed' end
if redis.call('HEXISTS', messages, ARGV[7]) == 0 then return 'gone' end
local queue = open(1)
if queue.ahead + queue.steps >= tonumber(ARGV[1]) then return 'full' end
redis.call('HDEL', messages, '')  -- the first write must need no memory: see `worker.delivery.lua`
local refused = push(queue, ARGV[2], claim, place, ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[9])
if refused then return refused end
redis.call('LREM', records, 1, ARGV[8])
redis.call('HDEL', messages, ARGV[7])
return 'replayed'
"""
)


class DeadLetterError(NameshotError):
    """There is no such dead letter, or it cannot be replayed."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The new job of a replayed letter.

    Attributes:
        lost_expires: whether the replay removed the message's ``expires``.
    """

    job_id: str
    lost_expires: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The record of one dead letter.

    Attributes:
        letter: the letter's own id.
        job_id: the id of the job, or None if the message contains none.
        image: the index of the image if workers gave up only one image of a bulk job, otherwise None.
        task: the name of the task, or None if no worker knows it.
        queue: the Redis list in which the message waited.
        code: ``poisoned``, ``malformed``, or ``unanswerable`` if the key of the answer holds something else.
        deaths: the number of workers that died while they held the message.
        size_bytes: the size of the message.
        at: when the worker gave up, in ISO 8601 and UTC.
        record: the stored JSON of the other fields.
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
        """Parse a worker's record; raises `DeadLetterError`."""
        try:
            values = {"image": None, **json.loads(record), "record": record}
            return cls(**{field.name: values[_IN_RECORDS.get(field.name, field.name)] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DeadLetterError(
                "the list of dead letters contains an entry that no worker wrote; check that no other program uses it."
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return the record in the form that the command line prints; ``image`` is left out if it is None."""
        left_out = {"record", "image"} if self.image is None else {"record"}
        return {_IN_RECORDS.get(name, name): value for name, value in asdict(self).items() if name not in left_out}


def list_letters(prefix: str) -> Operation[list[DeadLetter]]:
    """Return all dead letters, newest first; raises `DeadLetterError` for an entry that no worker wrote."""
    records = yield Call("broker", ("LRANGE", names.dead_letters_key(prefix), 0, -1))
    # The list may be in another order: if it is full, workers move a letter that must not be lost to the front.
    return sorted(map(DeadLetter.from_record, records), key=lambda letter: str(letter.at), reverse=True)


def find_letters(prefix: str, wanted: Sequence[str]) -> Operation[list[DeadLetter]]:
    """Return the letters with these ids, in the order of the ids.

    Raises:
        DeadLetterError: there is no letter with one of the ids.
    """
    found = {letter.letter: letter for letter in (yield from list_letters(prefix))}
    if missing := [letter for letter in wanted if letter not in found]:
        raise _no_such(missing[0])
    return [found[letter] for letter in wanted]


def replay_letter(prefix: str, letter: DeadLetter, *, result_ttl_s: int, max_queue: int) -> Operation[Replayed]:
    """Put a letter's message back on its queue as a new job, and remove the letter.

    The old id keeps its answer. The new job has its full number of attempts, because workers count deaths by job id. If
    only one image of a bulk job was poisoned, the new job has only that image.

    Raises:
        DeadLetterError: the letter is malformed, or no longer exists.
        QueueFull: the letter's queue holds ``max_queue`` waiting messages; the letter is kept.
    """
    check_replayable(letter)
    queue = _queue_of(prefix, letter)
    records, messages = names.dead_letters_key(prefix), names.dead_letter_messages_key(prefix)
    message = yield Call("broker", ("HGET", messages, letter.letter))
    if message is None:
        raise _no_such(letter.letter)
    job_id, life = str(uuid4()), str(uuid4())
    now_s = (yield from server_time_us("broker")) / 1_000_000
    anew = _as_new_job(message, letter, job_id, life, now_s)
    keys = (*queue_keys(prefix, queue), *names.claim_and_place(prefix, job_id), records, messages)
    claim_ttl_s = result_ttl_s + LONGEST_WAIT_S
    new_job = (anew.fingerprint, claim_ttl_s, life, anew.message)
    arguments = (max_queue, queue, *new_job, letter.letter, letter.record, anew.expires_s)
    doubt = f" Letter {letter.letter} may have been replayed as job {job_id}."
    outcome = yield Call("broker", ("EVAL", _REPLAY, len(keys), *keys, *arguments), doubt)
    if outcome == b"full":
        advice = f"letter {letter.letter} is kept; try again in {RETRY_AFTER_S:g} s."
        raise queue_full(letter.queue, max_queue, advice)
    if outcome == b"gone":
        raise _no_such(letter.letter)
    return Replayed(job_id, lost_expires=anew.lost_expires)


def check_replayable(letter: DeadLetter) -> None:
    """Raise `DeadLetterError` if a worker would refuse the letter's message again."""
    if letter.code == "malformed":
        raise DeadLetterError(
            f"letter {letter.letter} is malformed and cannot be replayed, because no worker can read it; "
            "correct the program that sent it."
        )


def _queue_of(prefix: str, letter: DeadLetter) -> names.Queue:
    """Return the queue in whose lists a letter's message waited; raises `DeadLetterError` if there is none."""
    for queue in names.QUEUES:
        if letter.queue in names.waiting_names(names.queue_name(prefix, queue)):
            return queue
    raise DeadLetterError(
        f"letter {letter.letter} waited in {letter.queue[:50]!r}, which is not a queue of {prefix!r}; "
        "replay it with the NAMESHOT_QUEUE_PREFIX under which it was sent."
    )


class _NewJob(NamedTuple):
    """The message of a replayed letter under its new id.

    Attributes:
        fingerprint: the value of the new job's claim key.
        expires_s: the first whole second since the epoch at which the job has expired; empty if it never does.
        lost_expires: whether the message's ``expires`` was removed.
    """

    message: str
    fingerprint: str
    expires_s: int | str
    lost_expires: bool


def _as_new_job(message: bytes, letter: DeadLetter, job_id: str, life: str, now_s: float) -> _NewJob:
    """Give a letter's message a new id.

    The message may have the short form that docs/wire-format.md describes.
    """
    try:
        envelope = json.loads(message)
        headers, properties = envelope["headers"], envelope.get("properties") or {}
        headers["id"] = headers["root_id"] = properties["correlation_id"] = job_id
        properties["delivery_tag"] = life
        if names.SENT_AT_HEADER in headers:
            headers[names.SENT_AT_HEADER] = now_s
        expires_s = _expires_s(headers.get("expires"))
        lost_expires = expires_s < now_s + LEAST_LEFT_S
        if lost_expires:
            headers["expires"] = None
            properties.pop("expiration", None)
            expires_s = inf
        is_base64 = properties.get("body_encoding") == "base64"
        body = base64.b64decode(envelope["body"], validate=True) if is_base64 else envelope["body"]
        args, kwargs, embed = json.loads(body)
        if letter.image is not None:
            kwargs["images"] = [kwargs["images"][letter.image]]
            body = json.dumps([args, kwargs, embed], separators=(",", ":"))
            envelope["body"] = base64.b64encode(body.encode()).decode() if is_base64 else body
        envelope["properties"] = properties
        return _NewJob(
            json.dumps(envelope),
            fingerprint(letter.task, canonical_json(kwargs)),
            "" if expires_s == inf else ceil(expires_s),
            lost_expires,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DeadLetterError(
            f"letter {letter.letter} cannot be replayed, because no worker can read its message; "
            "correct the program that sent it."
        ) from None


def _expires_s(expires: object) -> float:
    """Return ``expires`` in seconds since the epoch: infinite if the job never expires, 0 if no worker can parse it."""
    if expires is None:
        return inf
    try:
        moment = datetime.fromisoformat(str(expires))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0


def _no_such(letter: str) -> DeadLetterError:
    return DeadLetterError(
        f"there is no dead letter {letter[:50]!r}, or it was already replayed; see `nameshot dead-letters list`."
    )
