"""Acknowledges and requeues the messages that a channel has taken, by their delivery tags."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import QoS as VirtualQoS

from worker.delivery.moves import acknowledge, give_back
from worker.delivery.outages import describe, is_outage

logger = logging.getLogger(__name__)


class AtomicQoS(kombu_redis.QoS):  # type: ignore[misc]  # kombu is untyped
    """Acknowledges and requeues messages by their delivery tag, and never changes one that another worker now holds."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Keep a message in memory; the script `TAKE` has already recorded it in Redis."""
        VirtualQoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Delete a held message."""
        try:
            with _outliving_outages("acknowledge a message", "a worker takes it again, and its job keeps its answer"):
                acknowledge(self.channel.holding, self.channel.keys, delivery_tag)
        finally:  # if Redis still holds the message, `Lease` requeues it as an orphan
            VirtualQoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Delete a held message, or requeue it at the front of its queue."""
        if requeue:
            try:
                with _outliving_outages("requeue a message", "this worker requeues it later"):
                    give_back(self.channel.holding, self.channel.keys, delivery_tag)
            finally:
                VirtualQoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Requeue nothing: a channel also closes when its connection breaks, and jobs in hand then continue.

        The process requeues its messages when it shuts down; see `worker.delivery.lease`.
        """
        # Without this call, the registry of finalizers would keep this object alive, and with it the closed channel.
        self._on_collect.cancel()

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Restore nothing: there is no visibility timeout; `worker.delivery.lease` reclaims messages instead."""


@contextmanager
def _outliving_outages(what: str, instead: str) -> Iterator[None]:
    """Log one sentence if Redis is unreachable; Celery would log a critical error with a traceback."""
    try:
        yield
    except redis.RedisError as error:
        if not is_outage(error):
            raise
        logger.warning("could not %s (%s): %s", what, describe(error), instead)
