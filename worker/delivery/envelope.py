"""Reads kombu's JSON envelope around a task message, which any client, even a hostile one, may have written."""

from __future__ import annotations

import binascii
import json
from typing import Any, Final

from producer.contract import strict_json
from producer.contract.names import RETRIES_HEADER, SENT_AT_HEADER
from producer.contract.request_id import REQUEST_ID_HEADER
from producer.contract.strict_json import MAX_PARTS
from worker.delivery.json_members import Wanted, read_members
from worker.delivery.names import field_of
from worker.delivery.taken import NO_DEATHS, TAKEN_HEADER, Deaths, Taken, elapsed_s

#: The largest honest message is a `classify_many` that uses every limit of the contract, each character as a JSON
#: escape of up to 12 bytes: 64 URLs of 8,192 characters (0.5 MB: an escape is no longer than a percent-encoded
#: character), 100 templates of 500 (0.6 MB), and labels of 32,768 bytes of UTF-8, which escapes make up to six times as
#: long (0.2 MB). Base64 adds a third. That is 1.7 MB; the rest is for what plain clients add.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


#: A worker reads and keeps only these headers.
HEADERS: Final = ("task", "id", "eta", "expires", SENT_AT_HEADER, RETRIES_HEADER, REQUEST_ID_HEADER)
_WANTED: Final[Wanted] = {
    "body": None,
    "content-type": None,
    "headers": dict.fromkeys((*HEADERS, "compression")),
    "properties": dict.fromkeys(("body_encoding", "delivery_tag")),
}
#: Celery's task protocol 1, used before version 4, has the id in the body.
_OLD_BODY: Final[Wanted] = {"id": None}
#: A worker ignores a sender's delivery tag that is longer than this. Our clients send a UUID, 36 characters; the limit
#: leaves room for other clients.
MAX_LIFE_CHARACTERS: Final = 128


def read_envelope(
    raw: bytes, *, tag: str, queue: str, deaths: Deaths = NO_DEATHS, known_as: bytes | None = None
) -> dict[str, Any] | None:
    """Return the message in the form that kombu delivers; None if it is malformed and holds no job id.

    Only the fields that a worker needs are read and kept, and these must be strict JSON. An unusable field is left
    empty or recorded as a fault. The task refuses a message with a fault, so that every message with a readable id gets
    an answer. The body stays bytes, so that kombu decodes and decompresses nothing.

    Args:
        raw: the bytes from the queue; empty if the message is too large to be sent to a worker.
        tag: the delivery tag, ``<random>`` or, if the script found a client's id in the message,
            ``<random> <id> <life>`` or ``<random> <id>``.
        queue: the queue that the message was taken from, whatever the message itself claims.
        deaths: the deaths of workers that had the message in hand before.
        known_as: the field in which Redis counts this job's worker deaths, made from the id that Redis read; empty if
            Redis read none; None if unknown. It is a fault if this is not the field of the message's id, since a job
            whose deaths are not counted could kill one worker after another.
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
        fault = fault or f"Redis cannot read its id: it is not JSON or has over {MAX_PARTS} commas and opening brackets"
    if fault and not job_id:
        return None
    if own_headers.get("compression"):
        fault = fault or "its body is compressed; send it without compression"
    return {
        "body": body,
        "content-type": envelope.get("content-type"),
        "headers": {
            **{name: own_headers[name] for name in HEADERS if name in own_headers},
            "id": job_id,
            # Celery uses the name as a dictionary's key, and treats a message without a name as protocol 1.
            "task": task if isinstance(task, str) else "",
            TAKEN_HEADER: Taken(_life(_object(envelope, "properties").get("delivery_tag")), elapsed_s(), deaths, fault),
        },
        "properties": {"delivery_tag": tag, "delivery_info": {"exchange": "", "routing_key": queue}},
    }


def _read(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return the readable part of a message's envelope, and its fault or ``""``."""
    try:
        envelope = strict_json.loads(raw, max_parts=MAX_PARTS)
    except strict_json.NotStrictJson:
        envelope, fault = read_members(_in_utf8(raw), _WANTED)
        return envelope, fault and f"its envelope cannot be decoded as JSON, {fault}"
    return (envelope, "") if isinstance(envelope, dict) else ({}, "its envelope is not an object")


def _in_utf8(raw: bytes) -> bytes:
    """Return JSON text as UTF-8 without a byte order mark, so that a refusal can name the message's id."""
    encoding = json.detect_encoding(raw)
    return raw if encoding == "utf-8" else raw.decode(encoding, errors="replace").encode()


def _life(tag: object) -> str:
    """Return the sender's delivery tag, which distinguishes submissions of one id; ``""`` if it is unusable."""
    return tag if isinstance(tag, str) and len(tag) <= MAX_LIFE_CHARACTERS and tag.isprintable() else ""


def _object(envelope: dict[str, Any], name: str) -> dict[str, Any]:
    value = envelope.get(name)
    return value if isinstance(value, dict) else {}


def _body(envelope: dict[str, Any], headers: dict[str, Any]) -> bytes:
    """Return the body as the sender serialised it; ``b""`` if it cannot be decoded or is compressed."""
    body, encoding = envelope.get("body"), _object(envelope, "properties").get("body_encoding")
    if not isinstance(body, str) or headers.get("compression"):
        return b""
    if encoding != "base64":
        return b"" if encoding else body.encode()
    try:
        return binascii.a2b_base64(body, strict_mode=True)
    except (binascii.Error, ValueError):
        return b""
