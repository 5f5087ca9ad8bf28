"""Write a Celery message as a Redis list holds it: task protocol 2 inside kombu's JSON envelope.

Both formats are documented, stable and simple enough to write directly, so a web app that only sends jobs need not
load Celery. A test compares every field with what Celery's own ``send_task`` writes.
"""

from __future__ import annotations

import json
import os
import socket
from binascii import b2a_base64
from datetime import datetime
from typing import Final

from producer.contract.names import SENT_AT_HEADER

#: Replaces the arguments that Celery would show in logs and events, because an image's URL may be signed.
REDACTED: Final = "…"

_NO_CANVAS: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'

#: Encodes equal values as equal JSON texts.
canonical_json: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode

# The parts that are the same in all messages, encoded once, without the braces of the JSON object.
_ENVELOPE: Final = '"content-encoding":"utf-8","content-type":"application/json"'
_HEADERS: Final = canonical_json(
    {
        "lang": "py",
        "shadow": None,
        "eta": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "parent_id": None,
        "argsrepr": REDACTED,
        "kwargsrepr": REDACTED,
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
)[1:-1]
_PROPERTIES: Final = '"reply_to":"","delivery_mode":2,"priority":0,"body_encoding":"base64"'


def celery_message(
    *,
    task: str,
    job_id: str,
    delivery_tag: str,
    kwargs_json: str,
    queue: str,
    sent_at_s: float,
    expires_at: datetime | None,
) -> str:
    """Return the message, ready for LPUSH.

    Args:
        delivery_tag: unique to this message.
        kwargs_json: the task's keyword arguments, as JSON text.
        queue: the full name of the queue, which is also its Redis list.
        sent_at_s: seconds since the epoch.
        expires_at: the time at which the job expires, with a time zone; None if the job never expires.
    """
    body = b2a_base64(f"[[],{kwargs_json},{_NO_CANVAS}]".encode(), newline=False).decode()
    own_id, tag = canonical_json(job_id), canonical_json(delivery_tag)
    expires, expiration = "null", ""
    if expires_at is not None:
        expires = canonical_json(expires_at.isoformat())
        expiration = f'"expiration":"{round((expires_at.timestamp() - sent_at_s) * 1000)}",'
    origin = canonical_json(f"gen{os.getpid()}@{socket.gethostname()}")
    headers = (
        f'"task":{canonical_json(task)},"id":{own_id},"root_id":{own_id},"expires":{expires},"origin":{origin},'
        f'"{SENT_AT_HEADER}":{sent_at_s!r},{_HEADERS}'
    )
    properties = (
        f'"correlation_id":{own_id},"delivery_tag":{tag},{expiration}'
        f'"delivery_info":{{"exchange":"","routing_key":{canonical_json(queue)}}},{_PROPERTIES}'
    )
    return f'{{"body":"{body}",{_ENVELOPE},"headers":{{{headers}}},"properties":{{{properties}}}}}'
