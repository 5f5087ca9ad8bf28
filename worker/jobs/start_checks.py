"""What would make a worker answer wrongly, or never: found at its start, or at its first contact with Redis."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

import redis
from celery.concurrency.thread import TaskPool

from producer.broker.dialling import connect
from producer.broker.failures import unavailable
from producer.broker.servers import cannot_hear, cannot_wait, unfit
from producer.broker.urls import Endpoint, endpoint
from producer.contract import queue_name, rung_name
from producer.errors import SettingsError

logger = logging.getLogger(__name__)

#: By these Celery would choose its servers; here they would lead past the leases, which are where ours lead.
CELERYS_VARIABLES: Final = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    "CELERY_RESULT_BACKEND",
)
#: Settings of Celery on which delivery rests; its command line can change any (``-- task.acks_late=0``).
FIXED: Final = (
    *("worker_pool", "task_acks_late", "broker_transport", "worker_consumer", "accept_content"),
    # What an answer holds, a URL never, and how long it lives.
    *("result_extended", "result_expires", "result_accept_content"),
    # Messages would wait in the worker's memory.
    "task_default_rate_limit",
)
#: Seconds to connect, and then to reply. `FirstContact` looks at a slower server again once the worker has connected.
SERVER_TIMEOUT_S: Final = 2.0
#: RESP2, which servers before Redis 6 speak too: the check has to reach them in order to refuse them.
CONNECTION_OPTIONS: Final = {
    "socket_connect_timeout": SERVER_TIMEOUT_S,
    "socket_timeout": SERVER_TIMEOUT_S,
    "protocol": 2,
}


def refusal(error: Exception) -> SystemExit:
    """One sentence on stderr, and the exit status (78) for a configuration that no restart will help."""
    logger.critical("%s", error)
    return SystemExit(os.EX_CONFIG)


def servers(broker_url: str, result_backend: str) -> tuple[Endpoint, Endpoint]:
    """Broker and result backend; ends the process for a URL that cannot be used."""
    try:
        return (endpoint(broker_url, "NAMESHOT_BROKER_URL"), endpoint(result_backend, "NAMESHOT_RESULT_BACKEND"))
    except SettingsError as error:
        raise refusal(error) from None


def check_options(worker: Any, settings: Mapping[str, Any], *, most_threads: int) -> None:
    """Refuse what Celery's command line, its environment or a program chose and this worker cannot do.

    Args:
        worker: Celery's `WorkController`, before its pool is made.
        settings: Celery's as this worker needs them.
        most_threads: that one process may have.

    Raises:
        SettingsError: one sentence.
    """
    if worker.pool_cls not in ("threads", "celery.concurrency.thread:TaskPool", TaskPool):
        raise SettingsError(
            f"the pool {_name_of(worker.pool_cls)} cannot be used: the threads of this worker share one model and one "
            "device; leave -P (--pool, CELERY_WORKER_POOL) out, or say threads."
        )
    if changed := [name for name in FIXED if worker.app.conf[name] != settings.get(name)]:
        raise SettingsError(
            f"Celery's setting {changed[0]} cannot be changed: jobs would be lost, late or answered wrongly."
        )
    if worker.options.get("autoscale"):
        raise SettingsError(
            "--autoscale (CELERY_WORKER_AUTOSCALE) cannot be used: a pool of threads does not change its size; "
            "set NAMESHOT_CONCURRENCY, or start more workers."
        )
    if getattr(worker, "purge", False):
        raise SettingsError("--purge cannot be used: the ids of the jobs would stay taken; use `nameshot purge`.")
    concurrency = worker.concurrency
    if isinstance(concurrency, int) and not 1 <= concurrency <= most_threads:
        raise SettingsError(
            f"--concurrency {concurrency} cannot be used; it should be from 1 to {most_threads:,}, or left out."
        )


def _name_of(pool: Any) -> str:
    """As ``-P`` names Celery's own pools: the last part of their module's name."""
    if not isinstance(pool, type):
        return str(pool)
    package, _, name = pool.__module__.rpartition(".")
    return name if package == "celery.concurrency" else f"{pool.__module__}:{pool.__qualname__}"


def warn_of_unread(environment: Mapping[str, str], broker: Endpoint) -> None:
    """Say that Celery's own variables for its servers are not read; ``--broker`` sets one of them."""
    for name in CELERYS_VARIABLES:
        if environment.get(name):
            logger.warning(
                "%s is not read, nor --broker and --result-backend: this worker takes jobs from %s (%s)",
                name,
                broker.shown,
                broker.variable,
            )
            return


class FirstContact:
    """Looks once, as soon as each server answers, whether it will do; the first is the broker."""

    def __init__(self, broker: Endpoint, results: Endpoint, queue_prefix: str) -> None:
        self._broker = broker
        self._left = [broker, results]
        self._list = rung_name(queue_name(queue_prefix, "default"))

    def look(self) -> None:
        """Ask those that have not answered yet; say why one does not. Ends the process where one will never do."""
        for server in list(self._left):
            try:
                with connect(server, **CONNECTION_OPTIONS) as client:
                    wrong = self._judge(client, server)
            except redis.RedisError as error:
                logger.warning("%s", unavailable(error, server))
                continue
            if wrong:
                raise refusal(SettingsError(wrong))
            self._left.remove(server)

    def _judge(self, client: redis.Redis, server: Endpoint) -> str | None:
        wrong = unfit(client, server)
        if wrong or server is not self._broker:
            return wrong
        return cannot_wait(client, self._list, server) or cannot_hear(client, server)
