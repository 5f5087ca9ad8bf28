"""Write a Celery message as a Redis list holds it: task protocol 2 inside kombu's JSON envelope.

Both formats are documented, stable and simple enough to write directly, so a web app that only sends jobs need not
load Celery. A test compares every field with what Celery's own ``send_task`` writes.
"""

from __future__ import annotations

import json
import os
import socket
from binascii import b2a_base64
from dataclasses import dataclass, field, replace
from typing import Final

from producer.contract.names import RETRIES_HEADER

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


@dataclass(frozen=True, slots=True)
class UndatedMessage:
    """A message without the times at which it was sent and expires, which are two members of its headers.

    The script that queues the message writes them between ``before`` and ``after``; see `producer.operations.dating`.
    """

    before: str = field(repr=False)
    after: str = field(repr=False)

    def __len__(self) -> int:
        """Return the number of characters."""
        return len(self.before) + len(self.after)

    def with_header(self, name: str, value: str) -> UndatedMessage:
        """Return the message with one more header."""
        return replace(self, before=f"{self.before}{canonical_json(name)}:{canonical_json(value)},")


def celery_message(
    *,
    task: str,
    job_id: str,
    delivery_tag: str,
    kwargs_json: str,
    queue: str,
    expires_in_s: float | None,
    retries: int = 0,
) -> UndatedMessage:
    """Return the message.

    Args:
        delivery_tag: unique to this message.
        kwargs_json: the task's keyword arguments, as JSON text.
        queue: the full name of the queue, which is also its Redis list.
        expires_in_s: how long the job may wait; None if it never expires.
        retries: how many more times a worker may run the job after a retryable failure.
    """
    body = b2a_base64(f"[[],{kwargs_json},{_NO_CANVAS}]".encode(), newline=False).decode()
    own_id, tag = canonical_json(job_id), canonical_json(delivery_tag)
    expiration = "" if expires_in_s is None else f'"expiration":"{round(expires_in_s * 1000)}",'
    origin = canonical_json(f"gen{os.getpid()}@{socket.gethostname()}")
    again = f'"{RETRIES_HEADER}":{retries},' if retries else ""
    headers = f'"task":{canonical_json(task)},"id":{own_id},"root_id":{own_id},"origin":{origin},{again}{_HEADERS}'
    properties = (
        f'"correlation_id":{own_id},"delivery_tag":{tag},{expiration}'
        f'"delivery_info":{{"exchange":"","routing_key":{canonical_json(queue)}}},{_PROPERTIES}'
    )
    return UndatedMessage(
        f'{{"body":"{body}",{_ENVELOPE},"headers":{{{headers},', f'}},"properties":{{{properties}}}}}'
    )
