"""Checks, at a worker's start and first contact with Redis, that its options and servers allow it to answer jobs."""

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
from producer.broker.servers import cannot_subscribe, cannot_wait, unsuitable
from producer.broker.urls import Endpoint
from producer.contract.names import queue_name, rung_name
from producer.errors import SettingsError
from producer.settings import PREFIX
from worker.delivery.replies import well_formed

logger = logging.getLogger(__name__)

#: Celery would read its servers from these variables, but our workers use only the servers of nameshot's settings.
CELERYS_VARIABLES: Final = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    "CELERY_RESULT_BACKEND",
)
#: The worker relies on these settings of Celery, which a command line could change (``-- task.acks_late=0``).
FIXED: Final = (
    *("worker_pool", "task_acks_late", "broker_transport", "worker_consumer", "accept_content"),
    # These decide how long an answer is stored, and what it contains: an answer must never contain a URL.
    *("result_extended", "result_expires", "result_accept_content"),
    # A rate limit would keep messages in the worker's memory.
    *("task_default_rate_limit", "task_annotations"),
    # The Redis roles permit only the channels with Celery's default names.
    *("control_exchange", "event_exchange"),
    # Our own URLs determine the user and the password.
    "redis_backend_credential_provider",
    # Our own URLs determine TLS, and our own settings determine the names of the keys in Redis.
    *("broker_use_ssl", "redis_backend_use_ssl", "result_backend_transport_options"),
    # These would add queues that `worker.delivery` does not serve.
    *("worker_direct", "worker_agent"),
    # Without retries an outage of the broker would end the worker.
    "broker_connection_retry",
)
#: A variable whose name is at least this similar to that of a setting counts as mistyped. The variables that Kubernetes
#: sets for a service called ``nameshot-…`` are less similar.
LIKENESS: Final = 0.85
#: A server has this long to accept a connection, and as long again to reply. After a failure `FirstContact` checks the
#: server again once the worker has connected.
SERVER_TIMEOUT_S: Final = 2.0


def refusal(reason: str | Exception) -> SystemExit:
    """Log the reason and return an exit with status 78, which tells supervisors that a restart does not help."""
    logger.critical("%s", reason)
    return SystemExit(os.EX_CONFIG)


def check_options(worker: Any, settings: Mapping[str, Any], *, most_threads: int) -> None:
    """Check the options that Celery's command line, the environment or a program has set.

    Args:
        worker: Celery's `WorkController`, before its pool is created.
        settings: the Celery settings that this worker needs.
        most_threads: the largest number of threads in one process.

    Raises:
        SettingsError: this worker does not support an option.
    """
    if worker.pool_cls not in ("threads", "celery.concurrency.thread:TaskPool", TaskPool):
        raise SettingsError(wrong_pool(_name_of(worker.pool_cls)))
    if changed := [name for name in FIXED if worker.app.conf.get(name) != settings.get(name, DEFAULTS.get(name))]:
        raise SettingsError(
            f"Celery's setting {changed[0]} cannot be changed, because nameshot's workers rely on its value; remove it "
            "from the command line or from Celery's configuration."
        )
    for name, option in flatten(NAMESPACES):
        value = worker.app.conf.get(name)
        if option.type in ("int", "float") and not _is_number(value):
            raise SettingsError(f"Celery's setting {name} is {value!r}, which is not a number.")
    try:
        worker.app.timezone  # noqa: B018 - Celery reads this property whenever it stores an answer
    except Exception as error:
        zone = worker.app.conf.timezone
        raise SettingsError(f"Celery's setting timezone is {zone!r}, which cannot be used ({error}).") from None
    if worker.options.get("autoscale"):
        raise SettingsError(
            "--autoscale (CELERY_WORKER_AUTOSCALE) cannot be used: a thread pool cannot change its size; "
            "set NAMESHOT_CONCURRENCY, or start more workers."
        )
    if getattr(worker, "purge", False):
        raise SettingsError("--purge cannot be used: the ids of the jobs would stay taken; use `nameshot purge`.")
    concurrency = worker.concurrency
    if isinstance(concurrency, int) and not 1 <= concurrency <= most_threads:
        raise SettingsError(
            f"--concurrency {concurrency} cannot be used; choose a number from 1 to {most_threads:,}, or leave it out."
        )


def wrong_pool(name: str) -> str:
    """Return why a worker refuses a pool other than threads."""
    return (
        f"the pool {name} cannot be used: the threads of this worker share one model and one device; leave out -P "
        "(--pool, CELERY_WORKER_POOL), or set it to threads."
    )


def _is_number(value: Any) -> bool:
    """Return whether Celery can use a value as a number; Celery accepts None and numbers in strings too."""
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None or isinstance(value, timedelta)
    return True


def _name_of(pool: Any) -> str:
    """Return a pool's name for ``-P``; for Celery's own pools this is the last part of their module's name."""
    if not isinstance(pool, type):
        return str(pool)
    package, _, name = pool.__module__.rpartition(".")
    return name if package == "celery.concurrency" else f"{pool.__module__}:{pool.__qualname__}"


#: One file may hold the settings of all programs. Those whose names begin like this concern only the HTTP API.
OF_THE_HTTP_API: Final = f"{PREFIX}WEB"


def warn_of_unread(environment: Mapping[str, str], settings: Collection[str], broker: Endpoint) -> None:
    """Log a warning for variables without effect: mistyped settings, and those with which Celery chooses its servers.

    Celery's option ``--broker`` works by setting CELERY_BROKER_URL, so it causes this warning too.

    Args:
        settings: the names of the variables of all settings.
    """
    ours = (name for name in environment if name.startswith(PREFIX) and not name.startswith(OF_THE_HTTP_API))
    for name in sorted(name for name in ours if name not in settings):
        for meant in get_close_matches(name, settings, n=1, cutoff=LIKENESS):
            logger.warning("%s is not a setting, and is not read; did you mean %s?", name, meant)
    if unread := next(filter(environment.get, CELERYS_VARIABLES), None):
        logger.warning(
            "%s is not read, nor are --broker and --result-backend: this worker takes jobs from %s (%s)",
            unread,
            broker.shown,
            broker.variable,
        )


class FirstContact:
    """Checks each server once, as soon as it replies, for the version and the permissions that a worker needs."""

    def __init__(self, broker: Endpoint, results: Endpoint, queue_prefix: str) -> None:
        self._broker = broker
        self._left = [broker, results]
        self._list = rung_name(queue_name(queue_prefix, "default"))

    def check(self) -> None:
        """Check the servers that have not replied yet; log why one does not reply.

        Raises:
            SystemExit: a server lacks something that a worker needs.
        """
        options = {"socket_connect_timeout": SERVER_TIMEOUT_S, "socket_timeout": SERVER_TIMEOUT_S}
        for server in list(self._left):
            try:
                with connect(server, **options) as client, well_formed(client.close):
                    wrong = self._unfit(client, server)
            except redis.RedisError as error:
                logger.warning("%s", unavailable(error, server))
                continue
            if wrong:
                raise refusal(wrong)
            self._left.remove(server)

    def _unfit(self, client: redis.Redis, server: Endpoint) -> str | None:
        wrong = unsuitable(client, server)
        if wrong or server is not self._broker:
            return wrong
        return cannot_wait(client, self._list, server) or cannot_subscribe(client, server)
