"""What lies in a queue: kombu's JSON envelope around a task message, as a stranger may have written it."""

from __future__ import annotations

import binascii
from typing import Any, Final

from worker import strict_json

#: The largest honest message is a `classify_many` that uses every limit of the contract, each character as a JSON
#: escape of up to 12 bytes: 64 URLs of 2,048 characters (1.6 MB), 100 templates of 500 (0.6 MB), labels of 32,768
#: bytes of UTF-8, which become at most six times as many (0.2 MB); in base64 a third more. That is 3.2 MB, and this is
#: the next power of two. Ours, of ordinary URLs and labels, have some kilobytes.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


def read_envelope(raw: bytes, *, tag: str, queue: str, headers: dict[str, Any]) -> dict[str, Any] | None:
    """The message as kombu hands it on; None for what is no JSON object.

    Only what is needed is kept. A part that cannot be used is left empty, and whoever looks at the task refuses it: a
    message that names its id is to be answered. The body is bytes, so that kombu decodes and decompresses nothing.

    Args:
        tag: of this delivery.
        queue: that the message was taken from, whatever it says itself.
        headers: what the transport has to say, in the place of what the message says.
    """
    try:
        envelope = strict_json.loads(raw)
    except strict_json.NotStrictJson:
        return None
    if not isinstance(envelope, dict):
        return None
    own_headers = _object(envelope, "headers")
    task = own_headers.get("task")
    return {
        "body": _body(envelope, own_headers),
        "content-type": envelope.get("content-type"),
        "headers": {
            **{name: value for name, value in own_headers.items() if name != "compression"},
            **headers,
            # Celery looks it up in a dictionary, and without one takes the message for protocol 1.
            "task": task if isinstance(task, str) else "",
        },
        "properties": {"delivery_tag": tag, "delivery_info": {"exchange": "", "routing_key": queue}},
    }


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
