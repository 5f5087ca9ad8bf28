"""What lies in a queue: kombu's JSON envelope around a task message, as a stranger may have written it."""

from __future__ import annotations

import binascii
from typing import Any, Final

from producer.contract import SENT_AT_HEADER, strict_json
from producer.contract.strict_json import MAX_PARTS
from worker.delivery.json_members import Wanted, read_members
from worker.delivery.names import FAULT_HEADER, LIFE_HEADER, field_of

#: The largest honest message is a `classify_many` that uses every limit of the contract, each character as a JSON
#: escape of up to 12 bytes: 64 URLs of 2,048 characters (1.6 MB), 100 templates of 500 (0.6 MB), labels of 32,768
#: bytes of UTF-8, which become at most six times as many (0.2 MB); in base64 a third more. That is 3.2 MB, and this is
#: the next power of two. Ours, of ordinary URLs and labels, have some kilobytes.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


#: The headers that mean something here; the others are neither read nor kept.
HEADERS: Final = ("task", "id", "eta", "expires", SENT_AT_HEADER)
_WANTED: Final[Wanted] = {
    "body": None,
    "content-type": None,
    "headers": dict.fromkeys((*HEADERS, "compression")),
    "properties": dict.fromkeys(("body_encoding", "delivery_tag")),
}
#: Where Celery's task protocol 1, of versions before 4, has the id.
_OLD_BODY: Final[Wanted] = {"id": None}
#: Ours are 36 characters, a UUID.
MAX_LIFE_CHARACTERS: Final = 128


def read_envelope(
    raw: bytes, *, tag: str, queue: str, headers: dict[str, Any], known_as: bytes | None = None
) -> dict[str, Any] | None:
    """The message as kombu hands it on; None for what is no JSON object and names no job.

    Only what is needed is read and kept, and that must be strict JSON. A part that cannot be used is left empty, or its
    fault is noted, and the task refuses it: a message that names its id is to be answered. The body is
    bytes, so that kombu decodes and decompresses nothing.

    Args:
        raw: empty for a message that is too large to be sent to a worker.
        tag: of this delivery, ``<random>`` or, where the taker found a client's id in the message,
            ``<random> <id> <life>`` or ``<random> <id>``.
        queue: that the message was taken from, whatever it says itself.
        headers: what the transport has to say, in the place of what the message says.
        known_as: the field in which Redis counts the deaths of workers that held it, by the id that Redis read; empty
            where it read none. A job of which none is counted could end one worker after another.
    """
    if not raw:
        _, found_id, life = (*tag.split(" "), "", "")[:3]
        envelope: dict[str, Any] = {"headers": {"id": found_id}, "properties": {"delivery_tag": life}}
        fault = f"it has more than {MAX_MESSAGE_BYTES} bytes"
    else:
        envelope, fault = _read(raw)
    own_headers = _object(envelope, "headers")
    body = _body(envelope, own_headers)
    job_id, task = own_headers.get("id"), own_headers.get("task")
    if not isinstance(job_id, str) and (job_id := read_members(body, _OLD_BODY)[0].get("id")) is not None:
        fault = "it is in Celery's task protocol 1, and must be in 2"
    if raw and known_as is not None and isinstance(job_id, str) and known_as != field_of(job_id).encode():
        fault = fault or f"it is no JSON as Redis reads it, or has more than {MAX_PARTS} commas and opening brackets"
    if fault and not job_id:
        return None
    return {
        "body": body,
        "content-type": envelope.get("content-type"),
        "headers": {
            **{name: own_headers[name] for name in HEADERS if name in own_headers},
            **headers,
            **({FAULT_HEADER: fault} if fault else {}),
            "id": job_id,
            # Celery looks it up in a dictionary, and without one takes the message for protocol 1.
            "task": task if isinstance(task, str) else "",
            LIFE_HEADER: _life(_object(envelope, "properties").get("delivery_tag")),
        },
        "properties": {"delivery_tag": tag, "delivery_info": {"exchange": "", "routing_key": queue}},
    }


def _read(raw: bytes) -> tuple[dict[str, Any], str]:
    """What can be read of a message, and what is wrong with it."""
    try:
        envelope = strict_json.loads(raw, max_parts=MAX_PARTS)
    except strict_json.NotStrictJson:
        envelope, fault = read_members(raw, _WANTED)
        return envelope, fault and f"its envelope cannot be decoded as JSON, {fault}"
    return (envelope, "") if isinstance(envelope, dict) else ({}, "its envelope is no object")


def _life(tag: object) -> str:
    """Which submission of its id a message is, as its sender says."""
    return tag if isinstance(tag, str) and len(tag) <= MAX_LIFE_CHARACTERS and tag.isprintable() else ""


def _object(envelope: dict[str, Any], name: str) -> dict[str, Any]:
    value = envelope.get(name)
    return value if isinstance(value, dict) else {}


def _body(envelope: dict[str, Any], headers: dict[str, Any]) -> bytes:
    """The body as the sender serialised it; nothing where it cannot be had, or is compressed."""
    body, encoding = envelope.get("body"), _object(envelope, "properties").get("body_encoding")
    if not isinstance(body, str) or headers.get("compression"):
        return b""
    if encoding != "base64":
        return b"" if encoding else body.encode()
    try:
        return binascii.a2b_base64(body, strict_mode=True)
    except (binascii.Error, ValueError):
        return b""
