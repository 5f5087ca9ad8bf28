"""Declares a worker's queues in memory, whereas kombu would write bindings to Redis.

When a worker starts or reconnects, kombu adds each queue to a set, ``_kombu.binding.<exchange>``, and it reads these
sets to route a message. A full Redis rejects that write, and if the key held anything but a set, no worker could start.
The sets are not needed: the configuration names our queues, broadcasts use pub/sub, and the name of a reply's queue
follows from the reply's address.
"""

from __future__ import annotations

import json
import logging
import os
from functools import cached_property
from typing import Any, Final

import click
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import InvalidResponse

from producer.contract.names import QUEUES, queue_name
from producer.errors import NameshotError
from worker.delivery.broadcasts import checked
from worker.delivery.replies import well_formed

logger = logging.getLogger(__name__)

#: A client waits a few seconds for the reply to a remote control command; a later reply must not stay in Redis forever.
REPLY_TTL_S: Final = 60


class CommandRefused(NameshotError, click.ClickException):
    """Raised for a Celery command that would remove messages from a queue but leave their jobs' ids claimed."""

    exit_code = os.EX_CONFIG

    def __init__(self, queue: str, *, done: str) -> None:
        name = queue.rpartition(".")[2]
        click.ClickException.__init__(
            self,
            f"{queue} cannot be {done} with Celery: its jobs' ids would stay taken; "
            f"to delete its jobs, use `nameshot purge {name}`.",
        )


class Declaring(kombu_redis.Channel):  # type: ignore[misc]  # kombu is untyped
    """Declares our queues without writing a key, and leaves all other queues to kombu.

    Attributes:
        takes_replies: whether this channel consumes a queue that is not ours, as the channel of ``celery inspect``
            does. Such a channel belongs to no worker and has no lease, so it pops with kombu's own BRPOP.
    """

    #: Kombu sets this from the transport options.
    queue_prefix = ""
    takes_replies = False

    @cached_property
    def our_queues(self) -> frozenset[str]:
        """The names of the queues from which workers take messages under a lease."""
        return frozenset(queue_name(self.queue_prefix, queue) for queue in QUEUES)

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        """Consume as kombu does, and record whether the queue is ours."""
        result = super().basic_consume(queue, *args, **options)
        if queue in self.our_queues:
            self.queues_changed()
        elif queue not in self.active_fanout_queues:
            self.takes_replies = True
        return result

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        result = super()._basic_cancel(consumer_tag)
        if queue in self.our_queues:
            self.queues_changed()
        return result

    def queues_changed(self) -> None:
        """Handle a change in the set of our queues that this channel consumes; a subclass overrides this method."""

    def _size(self, queue: str) -> int:
        return 0 if queue in self.our_queues or queue in self._fanout_queues else int(super()._size(queue))

    def _purge(self, queue: str) -> int:
        if queue in self.our_queues:
            raise CommandRefused(queue, done="purged")
        return int(super()._purge(queue))

    def _get(self, queue: str) -> Any:
        """Refuse `celery amqp basic.get` for our queues, since kombu would lose the message that it pops."""
        if queue in self.our_queues:
            raise CommandRefused(queue, done="read")
        return super()._get(queue)

    def _has_queue(self, queue: str, **options: Any) -> bool:
        return queue in self.our_queues or bool(super()._has_queue(queue, **options))

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))
        elif queue not in self.our_queues:
            try:
                super()._queue_bind(exchange, routing_key, pattern, queue)
            except self.ResponseError as error:  # only workers of other applications need a binding to reply
                logger.warning("could not bind a reply queue for other applications: %s", type(error).__name__)

    def maybe_refresh_binding_expiry(self) -> None:
        """Refresh no binding of a fan-out queue, which has none; log a refusal by Redis without kombu's traceback."""
        for queue in self.active_fanout_queues:
            self._expires.pop(queue, None)
        try:
            super().maybe_refresh_binding_expiry()
        except self.ResponseError as error:
            logger.debug("could not refresh a binding: %s", error)

    def queue_delete(self, queue: str, *args: Any, **options: Any) -> Any:
        """Refuse `celery amqp queue.delete` for our queues; delete any other queue."""
        if queue in self.our_queues:
            raise CommandRefused(queue, done="deleted")
        return super().queue_delete(queue, *args, **options)

    def _delete(self, queue: str, exchange: str, *args: Any, **options: Any) -> None:
        if queue not in self._fanout_queues:
            super()._delete(queue, exchange, *args, **options)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        if exchange in self.our_queues:
            return [exchange]
        if _is_for_replies(exchange):
            return [f"{routing_key}.{exchange}"]
        found: list[str] = super()._lookup(exchange, routing_key, default)
        return found

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        if "_publish_batch" in options or not _is_for_replies(queue.partition(".")[2]):
            super()._put(queue, message, **options)
            return
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            pipe.lpush(queue, json.dumps(message)).expire(queue, REPLY_TTL_S).execute()

    def _receive_one(self, client: Any) -> Any:
        """Receive one broadcast; a malformed one counts as a lost connection."""
        try:
            with well_formed(client.connection.disconnect):
                return super()._receive_one(client)
        except InvalidResponse:
            self._in_listen = None
            raise

    def _handle_message(self, client: Any, response: Any) -> Any:
        """Reduce a published message to the fields that kombu needs."""
        received = super()._handle_message(client, response)
        if bytes_to_str(received["type"]).endswith("message"):
            received["data"] = checked(received["data"])
        return received

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        try:
            super()._deliver_fanout_message(message, exchange)
        except self.connection_errors:
            raise
        except Exception as error:  # untrusted text must not end the event loop
            logger.warning("ignored an unreadable broadcast: %s", type(error).__name__)
        return True


def _is_for_replies(exchange: str) -> bool:
    # kombu calls the exchange of replies to remote control commands ``reply.celery.pidbox``.
    return exchange.startswith("reply.") and exchange.endswith(".pidbox")
