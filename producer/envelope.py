"""One Celery message as it lies in a Redis list: task protocol 2 inside kombu's JSON envelope.

Both forms are documented and stable, and small enough to write directly, so that a web app that only sends jobs
loads no Celery. A test compares every field with what Celery's own ``send_task`` writes.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from producer.contract.names import SENT_AT_HEADER

#: Stands where Celery would put the arguments for logs and events: an image's URL may be signed.
REDACTED: Final = "…"

_NO_CANVAS: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def celery_message(
    *, task: str, job_id: str, kwargs_json: str, queue: str, sent_at_s: float, expires_at: datetime | None
) -> str:
    """The message, ready for LPUSH.

    Args:
        kwargs_json: the task's keyword arguments, as JSON text.
        queue: the full name of the queue, which is also its Redis list.
        sent_at_s: seconds since the epoch.
        expires_at: when a worker should no longer start the job; with a time zone.
    """
    body = f"[[],{kwargs_json},{_NO_CANVAS}]"
    properties: dict[str, Any] = {
        "correlation_id": job_id,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
    }
    if expires_at is not None:
        properties["expiration"] = str(round((expires_at.timestamp() - sent_at_s) * 1000))
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": job_id,
                "shadow": None,
                "eta": None,
                "expires": expires_at and expires_at.isoformat(),
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": job_id,
                "parent_id": None,
                "argsrepr": REDACTED,
                "kwargsrepr": REDACTED,
                "origin": f"gen{os.getpid()}@{socket.gethostname()}",
                "ignore_result": False,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                SENT_AT_HEADER: sent_at_s,
            },
            "properties": properties,
        }
    )
