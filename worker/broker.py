"""The Celery configuration of a worker as far as it is about Redis: where it is, queues, names and serialisers.

A plain Celery client needs none of this: ``send_task("nameshot.classify", kwargs={…}, queue="nameshot.default")``
with Celery's defaults writes to the same queues.
"""

from __future__ import annotations

from typing import Any, Final

from kombu import Queue as CeleryQueue

from producer.contract.names import QUEUES, queue_name
from producer.redis_urls import Endpoint

CONNECT_TIMEOUT_S: Final = 2.0
#: Must exceed the longest blocking wait, the 5 s of a worker's doorbell, or an idle consumer would look dead.
SOCKET_TIMEOUT_S: Final = 15.0


def celery_configuration(
    *, broker: Endpoint, results: Endpoint, result_ttl_s: int, queue_prefix: str
) -> dict[str, Any]:
    """Celery settings (lower-case names).

    Celery and kombu read URLs each in their own way, so they get none to read: transport and backend take the
    connections' arguments from the endpoints, and the URLs here are for people.
    """
    return {
        "broker_url": broker.shown,
        "result_backend": results.shown,
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
        "broker_transport_options": {**transport_options(queue_prefix), "endpoint": broker},
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

    Our worker keeps its messages in flight under names of its own (`worker.delivery`). A stock Celery worker on these
    queues would use these: with kombu's names it would share them with every other application of the database.
    """
    return {
        "unacked_key": f"{prefix}:unacked",
        "unacked_index_key": f"{prefix}:unacked_index",
        "unacked_mutex_key": f"{prefix}:unacked_mutex",
        # One list per queue, so that its length is the number of waiting messages.
        "priority_steps": [0],
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "client_name": "nameshot",
    }
