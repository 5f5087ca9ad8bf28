"""Celery's settings for a worker process: servers, queues, serialisers, threads.

A plain Celery client needs none of them: with Celery's defaults,
``send_task("nameshot.classify", kwargs={…}, queue="nameshot.default")`` writes to the same queues.
"""

from __future__ import annotations

from typing import Any, Final

from kombu import Queue

from producer.broker.urls import Endpoint
from producer.contract.names import queue_name
from worker.delivery.names import DeliveryKeys

#: A connection attempt to the broker or the result backend fails after this long.
CONNECT_TIMEOUT_S: Final = 2.0
#: A thread that stores an answer drops a silent connection after this long, and retries.
RESULTS_TIMEOUT_S: Final = 5.0
#: After this much silence the event loop pings the broker, because a machine that fails does not close its connections.
BROKER_SILENCE_S: Final = 5
#: A read from the broker fails after this long, which is longer than a doorbell's blocking command lasts.
BROKER_TIMEOUT_S: Final = 8


def configuration(
    broker: Endpoint, results: Endpoint, keys: DeliveryKeys, *, result_ttl_s: int, concurrency: int | str
) -> dict[str, Any]:
    """Return Celery's settings by their lower-case names.

    Celery and kombu each parse URLs in their own way. Our transport and our result backend therefore connect with
    arguments from the endpoints, and the URLs here are only for display.
    """
    return {
        "broker_url": broker.shown,
        "result_backend": results.shown,
        "result_expires": result_ttl_s,
        # Each queue is a Redis list of this name, without priority steps or a global key prefix.
        "task_queues": [Queue(name, routing_key=name) for name in keys.queues],
        "task_default_queue": queue_name(keys.prefix, "default"),
        "task_create_missing_queues": False,
        # Messages and answers are JSON only.
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # A stored answer must not hold the arguments, because an image's URL may be signed.
        "result_extended": False,
        "broker_transport": "worker.delivery.transport:AtomicTransport",
        "broker_transport_options": transport_options(broker, keys),
        # Threads share one model and one device context, and download images while the device computes.
        "worker_pool": "threads",
        "worker_concurrency": concurrency,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "worker.jobs.consumer:QuietConsumer",
        "task_acks_late": True,
        # The task itself stores STARTED, and learns from the reply whether an answer already exists.
        "task_track_started": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,  # events halve the throughput, and our metrics replace them
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # MISCONF, READONLY, NOREPLICAS and similar errors are temporary, so they count as a lost connection.
        "broker_channel_error_retry": True,
        # `worker.jobs.consumer.ImageCredit` already counts the messages in hand from before a reconnection.
        "worker_enable_prefetch_count_reduction": False,
        # All threads share one connection pool, because redis-py's pool is thread-safe.
        "result_backend_thread_safe": True,
        "redis_socket_timeout": RESULTS_TIMEOUT_S,
        "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
        "redis_backend_health_check_interval": 25,
    }


def transport_options(broker: Endpoint, keys: DeliveryKeys) -> dict[str, Any]:
    """Return the options for kombu's Redis transport and for ours.

    Our worker records the messages in hand under its own keys (`worker.delivery`). The ``unacked`` keys serve a stock
    Celery worker on these queues, which would otherwise share kombu's default keys with all applications of the
    database.
    """
    return {
        "endpoint": broker,
        "queue_prefix": keys.prefix,
        "worker_name": keys.worker,
        "unacked_key": f"{keys.prefix}:unacked",
        "unacked_index_key": f"{keys.prefix}:unacked_index",
        "unacked_mutex_key": f"{keys.prefix}:unacked_mutex",
        # With one priority step a queue is one list, whose length is the number of waiting messages.
        "priority_steps": [0],
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": BROKER_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": BROKER_SILENCE_S,
        "client_name": "nameshot",
    }
