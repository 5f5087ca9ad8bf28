"""The Celery configuration that producers and workers share: queues, names and serialisers.

A plain Celery client needs none of this: ``send_task("nameshot.classify", kwargs={…}, queue="nameshot.default")``
with Celery's defaults writes to the same queues.
"""

from __future__ import annotations

from typing import Any, Final

from kombu import Queue as CeleryQueue

from producer.contract.names import QUEUES, queue_name

#: Longer than any job may take (a bulk message: 120 s), since nothing refreshes a message in flight yet.
VISIBILITY_TIMEOUT_S: Final = 900

CONNECT_TIMEOUT_S: Final = 2.0
#: Must exceed kombu's BRPOP timeout of 1 s, or an idle consumer would look dead.
SOCKET_TIMEOUT_S: Final = 15.0


def celery_configuration(
    *, broker_url: str, result_backend: str, result_ttl_s: int, queue_prefix: str
) -> dict[str, Any]:
    """Celery settings (lower-case names) as both sides need them."""
    return {
        "broker_url": broker_url,
        "result_backend": result_backend,
        "result_expires": result_ttl_s,
        "task_queues": [queue(queue_prefix, name) for name in QUEUES],
        "task_default_queue": queue_name(queue_prefix, "default"),
        "task_create_missing_queues": False,
        # JSON only on the wire, in both directions.
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # A result never holds the arguments: an image's URL may be signed.
        "result_extended": False,
        "broker_transport_options": transport_options(queue_prefix),
        "redis_socket_timeout": SOCKET_TIMEOUT_S,
        "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
        "redis_backend_health_check_interval": 25,
    }


def queue(prefix: str, name: Any) -> CeleryQueue:
    """One of our queues: a plain Redis list of that name (no priority steps, no global key prefix)."""
    full_name = queue_name(prefix, name)
    return CeleryQueue(full_name, routing_key=full_name)


def transport_options(prefix: str) -> dict[str, Any]:
    """kombu's options for Redis.

    The unacked hash, index and mutex have names of our own: with the stock names, our visibility timeout
    would make another application's long jobs run again.
    """
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_key": f"{prefix}:unacked",
        "unacked_index_key": f"{prefix}:unacked_index",
        "unacked_mutex_key": f"{prefix}:unacked_mutex",
        # A worker killed inside the sweep holds its lock this long (seconds; kombu's default is 300).
        "unacked_mutex_expire": 30,
        # Look for timed-out messages every 5 s, each time (kombu: every 10 s, but only each tenth time).
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # One list per queue, so that its length is the number of waiting messages.
        "priority_steps": [0],
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "client_name": "nameshot",
    }
