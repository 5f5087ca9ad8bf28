"""Checks, at start and at first contact with Redis, for anything that would make a worker answer wrongly or never."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Final

import redis
from celery.app.defaults import DEFAULTS, NAMESPACES, flatten
from celery.concurrency.thread import TaskPool

from producer.broker.dialling import connect
from producer.broker.failures import unavailable
from producer.broker.servers import cannot_subscribe, cannot_wait, unfit
from producer.broker.urls import Endpoint
from producer.contract.names import queue_name, rung_name
from producer.errors import SettingsError
from producer.settings import PREFIX

logger = logging.getLogger(__name__)

#: Celery would take its servers from these variables; but our leases are on the servers of our own settings.
CELERYS_VARIABLES: Final = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    "CELERY_RESULT_BACKEND",
)
#: Delivery relies on these settings of Celery, which its command line could change (``-- task.acks_late=0``).
FIXED: Final = (
    *("worker_pool", "task_acks_late", "broker_transport", "worker_consumer", "accept_content"),
    # These decide what an answer holds, which is never a URL, and how long it lives.
    *("result_extended", "result_expires", "result_accept_content"),
    # A rate limit would keep messages in the worker's memory.
    *("task_default_rate_limit", "task_annotations"),
    # The roles permit the channels of Celery's own names only.
    *("control_exchange", "event_exchange"),
    # User and password follow from our own URLs too.
    "redis_backend_credential_provider",
    # TLS and keys follow from our own URLs; a queue for one worker and an agent's queues are none of ours.
    *("broker_use_ssl", "redis_backend_use_ssl", "result_backend_transport_options", "worker_direct", "worker_agent"),
    # Without retries an outage of Redis would end the worker.
    "broker_connection_retry",
)
#: A variable this much like a setting's is taken for a mistyped one. Kubernetes' variables for a service that is called
#: ``nameshot-…`` are less like any.
LIKENESS: Final = 0.85
#: Seconds to connect, and then to reply. `FirstContact` looks at a slower server again once the worker has connected.
SERVER_TIMEOUT_S: Final = 2.0


def refusal(reason: str | Exception) -> SystemExit:
    """Log a sentence or an error that is one, and return an exit with status 78, since no restart can help."""
    logger.critical("%s", reason)
    return SystemExit(os.EX_CONFIG)


def check_options(worker: Any, settings: Mapping[str, Any], *, most_threads: int) -> None:
    """Refuse options, from Celery's command line, its environment or a program, that this worker does not support.

    Args:
        worker: Celery's `WorkController`, before its pool is created.
        settings: Celery's settings as this worker needs them.
        most_threads: the largest number of threads in one process.

    Raises:
        SettingsError: an option is not supported.
    """
    if worker.pool_cls not in ("threads", "celery.concurrency.thread:TaskPool", TaskPool):
        raise SettingsError(
            f"the pool {_name_of(worker.pool_cls)} cannot be used: the threads of this worker share one model and one "
            "device; leave out -P (--pool, CELERY_WORKER_POOL), or set it to threads."
        )
    if changed := [name for name in FIXED if worker.app.conf.get(name) != settings.get(name, DEFAULTS.get(name))]:
        raise SettingsError(
            f"Celery's setting {changed[0]} cannot be changed: jobs would be lost, late or answered wrongly."
        )
    for name, option in flatten(NAMESPACES):
        value = worker.app.conf.get(name)
        if option.type in ("int", "float") and not _is_number(value):
            raise SettingsError(f"Celery's setting {name} is {value!r}, which is not a number.")
    try:
        worker.app.timezone  # noqa: B018 - Celery looks it up each time it stores an answer
    except Exception as error:
        zone = worker.app.conf.timezone
        raise SettingsError(f"Celery's setting timezone is {zone!r}, which cannot be used ({error}).") from None
    if worker.options.get("autoscale"):
        raise SettingsError(
            "--autoscale (CELERY_WORKER_AUTOSCALE) cannot be used: a thread pool does not change its size; "
            "set NAMESHOT_CONCURRENCY, or start more workers."
        )
    if getattr(worker, "purge", False):
        raise SettingsError("--purge cannot be used: the ids of the jobs would stay taken; use `nameshot purge`.")
    concurrency = worker.concurrency
    if isinstance(concurrency, int) and not 1 <= concurrency <= most_threads:
        raise SettingsError(
            f"--concurrency {concurrency} cannot be used; it should be from 1 to {most_threads:,}, or left out."
        )


def _is_number(value: Any) -> bool:
    """Return whether Celery can use a value as a number; it has defaults for None and accepts numbers in strings."""
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None or isinstance(value, timedelta)
    return True


def _name_of(pool: Any) -> str:
    """Return a pool's name as given to ``-P``: for Celery's own pools the last part of their module's name."""
    if not isinstance(pool, type):
        return str(pool)
    package, _, name = pool.__module__.rpartition(".")
    return name if package == "celery.concurrency" else f"{pool.__module__}:{pool.__qualname__}"


def warn_of_unread(environment: Mapping[str, str], settings: Collection[str], broker: Endpoint) -> None:
    """Warn of variables that are not read: mistyped settings, and Celery's for its servers (``--broker`` sets one).

    Args:
        settings: the variables of all settings.
    """
    for name in sorted(name for name in environment if name.startswith(PREFIX) and name not in settings):
        for meant in get_close_matches(name, settings, n=1, cutoff=LIKENESS):
            logger.warning("%s is not a setting, and is not read; did you mean %s?", name, meant)
    if unread := next(filter(environment.get, CELERYS_VARIABLES), None):
        logger.warning(
            "%s is not read, nor --broker and --result-backend: this worker takes jobs from %s (%s)",
            unread,
            broker.shown,
            broker.variable,
        )


class FirstContact:
    """Checks each server once, as soon as it answers, for the version and permissions that a worker needs."""

    def __init__(self, broker: Endpoint, results: Endpoint, queue_prefix: str) -> None:
        self._broker = broker
        self._left = [broker, results]
        self._list = rung_name(queue_name(queue_prefix, "default"))

    def look(self) -> None:
        """Check servers that have not answered yet; log why one does not, and raise `SystemExit` for an unfit one."""
        # RESP2, which servers before Redis 6 speak too: the check has to reach them in order to refuse them.
        options = {"socket_connect_timeout": SERVER_TIMEOUT_S, "socket_timeout": SERVER_TIMEOUT_S, "protocol": 2}
        for server in list(self._left):
            try:
                with connect(server, **options) as client:
                    wrong = self._judge(client, server)
            except redis.RedisError as error:
                logger.warning("%s", unavailable(error, server))
                continue
            if wrong:
                raise refusal(wrong)
            self._left.remove(server)

    def _judge(self, client: redis.Redis, server: Endpoint) -> str | None:
        wrong = unfit(client, server)
        if wrong or server is not self._broker:
            return wrong
        return cannot_wait(client, self._list, server) or cannot_subscribe(client, server)
