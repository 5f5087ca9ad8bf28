"""Celery's settings for a worker process: where Redis is, queues, names, serialisers, threads.

A plain Celery client needs none of this: ``send_task("nameshot.classify", kwargs={…}, queue="nameshot.default")``
with Celery's defaults writes to the same queues.
"""

from __future__ import annotations

from typing import Any, Final

from kombu import Queue

from producer.broker.urls import Endpoint
from producer.contract.names import queue_name
from worker.delivery.names import DeliveryKeys

CONNECT_TIMEOUT_S: Final = 2.0
#: A thread that stores an answer drops a silent connection after this long, and retries.
RESULTS_TIMEOUT_S: Final = 5.0
#: The event loop checks its connection to the broker at this interval and drops it after this much silence: a machine
#: that vanishes closes no connection.
BROKER_SILENCE_S: Final = 5
#: This is longer than a doorbell's blocking command. The event loop may wait this long three times before reconnecting.
BROKER_TIMEOUT_S: Final = 8


def configuration(
    broker: Endpoint, results: Endpoint, keys: DeliveryKeys, *, result_ttl_s: int, concurrency: int | str
) -> dict[str, Any]:
    """Return Celery's settings, by their lower-case names.

    Celery and kombu each parse URLs in their own way, so they get none to parse: transport and backend take connection
    arguments from the endpoints, and the URLs here are only for display.
    """
    return {
        "broker_url": broker.shown,
        "result_backend": results.shown,
        "result_expires": result_ttl_s,
        # Plain Redis lists of these names, without priority steps or a global key prefix.
        "task_queues": [Queue(name, routing_key=name) for name in keys.queues],
        "task_default_queue": queue_name(keys.prefix, "default"),
        "task_create_missing_queues": False,
        # JSON only on the wire, in both directions.
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # A result never holds the arguments: an image's URL may be signed.
        "result_extended": False,
        "broker_transport": "worker.delivery.transport:AtomicTransport",
        "broker_transport_options": transport_options(broker, keys),
        # Threads overlap downloads with the device, and share one model and one device context.
        "worker_pool": "threads",
        "worker_concurrency": concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "worker.jobs.consumer:QuietConsumer",
        "task_acks_late": True,
        "task_track_started": False,  # the task stores STARTED itself, and learns whether an answer exists already
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,  # events halve the throughput; our own metrics replace them
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # MISCONF, READONLY, NOREPLICAS and similar errors are temporary, as a lost connection is.
        "broker_channel_error_retry": True,
        # `worker.jobs.consumer.ImageCredit` counts messages in hand, including those from before a reconnection.
        "worker_enable_prefetch_count_reduction": False,
        # One pool of connections for all threads; redis-py's is thread-safe.
        "result_backend_thread_safe": True,
        "redis_socket_timeout": RESULTS_TIMEOUT_S,
        "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
        "redis_backend_health_check_interval": 25,
    }


def transport_options(broker: Endpoint, keys: DeliveryKeys) -> dict[str, Any]:
    """Return kombu's options for Redis, and those of our transport.

    Our worker keeps its in-flight messages under its own keys (`worker.delivery`). The ``unacked`` keys are for a stock
    Celery worker on these queues: with kombu's default names it would share them with all applications of the database.
    """
    return {
        "endpoint": broker,
        "queue_prefix": keys.prefix,
        "worker_name": keys.worker,
        "unacked_key": f"{keys.prefix}:unacked",
        "unacked_index_key": f"{keys.prefix}:unacked_index",
        "unacked_mutex_key": f"{keys.prefix}:unacked_mutex",
        # One list per queue, so that its length is the number of waiting messages.
        "priority_steps": [0],
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": BROKER_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": BROKER_SILENCE_S,
        "client_name": "nameshot",
    }
