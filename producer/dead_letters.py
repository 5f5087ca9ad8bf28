"""Dead letters: jobs that killed workers and messages that nobody could read, to be looked at and sent again.

Workers write them (`worker.delivery.dead_letters`). A record says which job, when and why, and never what was asked;
the message itself lies apart, byte by byte, for `replay_letter`. See `producer.operations` for what an operation is.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from producer.contract import (
    CLASSIFY_MANY,
    SENT_AT_HEADER,
    claim_key,
    dead_letter_messages_key,
    dead_letters_key,
)
from producer.envelope import canonical_json
from producer.errors import NameshotError
from producer.operations import RETRY_AFTER_S, Call, Operation, queue_full
from producer.submission import LONGEST_WAIT_S, fingerprint

#: Puts a dead letter's message back, once: a reply that was lost may be asked for again.
#: KEYS: the records, their messages, the new job's claim, the queue. ARGV: the letter, its record as it stands, the
#: new message, its fingerprint, the claim's life in seconds, most waiting messages. Returns what became of it.
_REPLAY: Final = """
if redis.call('GET', KEYS[3]) == ARGV[4] then return 'replayed' end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 'gone' end
if redis.call('LLEN', KEYS[4]) >= tonumber(ARGV[6]) then return 'full' end
redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5])
redis.call('LPUSH', KEYS[4], ARGV[3])
redis.call('LREM', KEYS[1], 1, ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[1])
return 'replayed'
"""


class DeadLetterError(NameshotError):
    """There is no such dead letter, or it cannot be replayed."""


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


def replay_letter(prefix: str, letter: DeadLetter, *, result_ttl_s: int, max_queue: int) -> Operation[str]:
    """Put a letter's message back on its queue as a new job, and remove the letter. Returns the new job's id.

    The old id keeps its answer. Suspicion goes by id, so that the new job has its full number of attempts. Of a bulk
    job with one poisoned image, the new job asks about that image only.

    Raises:
        DeadLetterError: it is malformed, or there no more.
        QueueFull: its queue holds ``max_queue`` waiting messages; the letter stays.
    """
    check_replayable(letter)
    records, messages = dead_letters_key(prefix), dead_letter_messages_key(prefix)
    message = yield Call("broker", ("HGET", messages, letter.letter))
    if message is None:
        raise _no_such(letter.letter)
    job_id = str(uuid4())
    written, digest = _as_new_job(message, letter, job_id)
    keys = (records, messages, claim_key(prefix, job_id), letter.queue)
    arguments = (letter.letter, letter.record, written, digest, result_ttl_s + LONGEST_WAIT_S, max_queue)
    doubt = f" Letter {letter.letter} may have been replayed as job {job_id}."
    outcome = yield Call("broker", ("EVAL", _REPLAY, len(keys), *keys, *arguments), doubt)
    if outcome == b"full":
        advice = f"letter {letter.letter} stays, try again in {RETRY_AFTER_S:g} s."
        raise queue_full(letter.queue, max_queue, advice)
    if outcome == b"gone":
        raise _no_such(letter.letter)
    return job_id


def check_replayable(letter: DeadLetter) -> None:
    """Raise `DeadLetterError` for a message that would be refused again."""
    if letter.code == "malformed":
        raise DeadLetterError(
            f"letter {letter.letter} is malformed and cannot be replayed: no worker could read it either; "
            "correct the program that sent it."
        )


def _as_new_job(message: bytes, letter: DeadLetter, job_id: str) -> tuple[str, str]:
    """The message under another id, and the fingerprint that claims it, as `producer.submission` has it."""
    envelope = json.loads(message)
    headers, properties = envelope["headers"], envelope["properties"]
    headers["id"] = headers["root_id"] = properties["correlation_id"] = job_id
    if SENT_AT_HEADER in headers:
        headers[SENT_AT_HEADER] = time.time()
    try:
        args, kwargs, embed = json.loads(base64.b64decode(envelope["body"], validate=True))
        if letter.image is not None and letter.task == CLASSIFY_MANY:
            kwargs["images"] = [kwargs["images"][letter.image]]
            body = json.dumps([args, kwargs, embed], separators=(",", ":"))
            envelope["body"] = base64.b64encode(body.encode()).decode()
        payload = canonical_json(kwargs)
    except (ValueError, LookupError, TypeError, RecursionError):
        # Another client's encoding, which only its worker can read: the message goes back whole.
        payload = str(envelope["body"])
    return json.dumps(envelope), fingerprint(letter.task, payload)


def _no_such(letter: str) -> DeadLetterError:
    return DeadLetterError(
        f"there is no dead letter {letter[:50]!r}, or it was replayed already; "
        "`nameshot dead-letters list` shows those there are."
    )
