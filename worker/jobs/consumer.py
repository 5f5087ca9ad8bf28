"""Celery's consumer without gossip, with content-free logs, credit by images, liveness ticks and steady reconnects.

Celery has no configuration key for gossip and mingle, which only cost start-up time and traffic here. The configured
consumer class switches them off, so that a plain ``celery -A worker worker`` works too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from types import MethodType
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery import bootsteps, signals
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from kombu.asynchronous import set_event_loop

from producer.contract.names import CLASSIFY_MANY, Queue, queue_name
from worker.delivery.credit import open_queues, queue_of
from worker.delivery.taken import TAKEN_HEADER
from worker.delivery.transport import wake_event_loop
from worker.jobs.messages import refuse
from worker.jobs.running_worker import worker_of

logger = logging.getLogger(__name__)

#: The event loop ticks at this interval, well below `worker.delivery.times.Times.loop_silent_s`.
TICK_S: Final = 1.0
#: While the broker is away, the worker checks at this interval whether it is back.
ASK_EVERY_S: Final = 0.5
#: Connections that end at once follow each other at this interval, so that they do not flood the log.
RECONNECT_S: Final = 1.0


class QuietConsumer(Consumer):  # type: ignore[misc]  # celery is untyped
    """Celery's consumer without gossip and mingle, which never logs the content of an unusable message."""

    _connected_at_s = float("-inf")
    _lost_at_s: float | None = None

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_gossip": True, "without_mingle": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **options)
        self._worker = worker_of(self.app)

    def start(self) -> None:
        """Consume until stopped; after an error that Celery calls unrecoverable, drain and end the process."""
        self._worker.delivery.shutdown.install(self._stop_taking)
        try:
            super().start()
        except Exception:
            self._worker.delivery.shutdown.fail()
            raise

    def _stop_taking(self, number: int) -> None:
        """Start Celery's warm shutdown for any signal; Celery's own handlers would install harder ones afterwards."""
        status = os.EX_OK if number != signal.SIGINT else 1
        try:
            name = signal.Signals(number).name
            signals.worker_shutting_down.send(sender=self.hostname, sig=name, how="Warm", exitcode=status)
        finally:
            state.should_stop = status

    def connect(self) -> Any:
        """Connect to the broker, once it takes commands."""
        time.sleep(max(0.0, self._connected_at_s + RECONNECT_S - time.monotonic()))
        if self.hub:
            # kombu leaves each former connection's callback in the hub; and a reset hub is no longer the current event
            # loop, which doorbells wake.
            self.hub.on_tick.clear()
            set_event_loop(self.hub)
        connection = super().connect()
        self._connected_at_s = time.monotonic()
        self._worker.first_contact.look()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker, then connect; Celery's own retries back off to 30 s."""
        logged = False
        while problem := self._worker.readiness.broker_problem():
            if not logged:
                logger.warning("%s: no job is taken until it does", problem)
                logged = True
            if not problem.endswith("does not answer"):
                self._worker.first_contact.look()  # a server that refuses commands may be unsuitable for good
            state.maybe_shutdown()
            time.sleep(ASK_EVERY_S)
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Handle a broker that went away again during the connection."""
        self._lose()
        super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Handle a broken connection, or an error reply of the broker."""
        self._lose()
        super().on_connection_error_after_connected(exc)

    def _lose(self) -> None:
        self._worker.readiness.is_consuming = False
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()

    def on_ready(self) -> None:
        """Record that messages are consumed from now on."""
        super().on_ready()
        self._worker.readiness.is_consuming = True
        if self._lost_at_s is not None:
            logger.info("jobs are taken again, after %.1f s", time.monotonic() - self._lost_at_s)
            self._lost_at_s = None

    def on_unknown_task(self, _body: Any, message: Any, _error: Any) -> None:
        """Refuse a message whose task this worker does not have."""
        refuse(self, message, message.headers[TAKEN_HEADER].fault or "its task is not known here")

    def on_decode_error(self, message: Any, _error: Any) -> None:
        """Refuse a message in an unaccepted encoding; ignore a broadcast, which is not a job from a queue."""
        if self.task_consumer and message.channel is self.task_consumer.channel:
            refuse(self, message, "it cannot be decoded")
        else:
            logger.warning("ignored a broadcast that cannot be decoded")

    def on_invalid_task(self, _body: Any, message: Any, _error: Any) -> None:
        """Refuse a message in which a header that Celery needs, ``eta`` or ``expires``, is wrong."""
        refuse(self, message, "a header cannot be used, eta or expires perhaps")


class ImageCredit(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Takes a queue's messages only while fewer of its images are in hand than may be in flight.

    Celery counts messages, but a bulk message holds up to 64 images. By Celery's count one worker would hoard the bulk
    queue while others idle, and could not answer the last message it took in time. An image counts until it has its
    outcome, and an image that stalls does not block other queues.
    """

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Install this count in front of kombu's own on each new channel."""
        worker, channel = worker_of(consumer.app), consumer.task_consumer.channel
        outcomes = worker.outcomes
        qos, prefix = channel.qos, channel.queue_prefix
        kombu_can_consume = qos.can_consume
        sizes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

        def can_consume(_qos: Any) -> bool:
            if not worker.service.engine.is_available or worker.answers.outage.description:
                return False  # others may do better; the loop's next tick looks again
            if len(worker.refusals.tags) >= consumer.pool.num_processes:
                return False
            in_hand: dict[str, tuple[Queue, int]] = {}
            for request in requests_in_hand():
                if (size := sizes.get(request)) is None:
                    size = sizes[request] = images_in(request.name, request.kwargs)
                tag = request.message.delivery_tag
                in_hand[tag] = queue_of(request.delivery_info.get("routing_key"), prefix), size - outcomes.of(tag)
            outcomes.forget_others(in_hand)
            queues = open_queues(in_hand.values(), consumer.pool.num_processes)
            channel.takes = frozenset(queue_name(prefix, queue) for queue in queues) & set(channel.active_queues)
            return bool(channel.takes) and bool(kombu_can_consume())

        def look_again() -> None:
            """Wake the event loop if an outcome may let it take from another queue."""
            if channel.takes is not None and len(channel.takes) < len(channel.active_queues):
                wake_event_loop()

        outcomes.on_outcome = look_again
        qos.can_consume = MethodType(can_consume, qos)


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Reports, while the event loop runs, its ticks to liveness and the messages in hand to the lease."""

    requires = (Tasks,)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start ticking from the event loop's timer."""
        worker, channel = worker_of(consumer.app), consumer.task_consumer.channel
        liveness, lease = worker.delivery.liveness, worker.delivery.lease
        liveness.tick()
        self._timer = consumer.timer.call_repeatedly(TICK_S, liveness.tick)
        lease.tags_in_hand = lambda: tags_in_hand(channel, worker.refusals.tags)
        lease.stop_waiting = channel.stop_waiting
        worker.readiness.broker_refusal = lambda: channel.refusal

    def stop(self, consumer: Any) -> None:
        """Stop reporting, since the event loop ends or waits for the broker."""
        if self._timer is not None:
            self._timer.cancel()
        delivery = worker_of(consumer.app).delivery
        delivery.liveness.pause()
        delivery.lease.tags_in_hand = lambda: None

    shutdown = stop


def tags_in_hand(channel: Any, refused: set[str]) -> set[str] | None:
    """Return the delivery tags of all messages in hand; None if they change while this function counts them.

    It reads each place before the one that a message moves to next, so that it misses none.

    Args:
        channel: the current channel. Jobs from former channels are among Celery's reserved requests.
        refused: the tags of messages that are being refused, from any channel.
    """
    asked = {channel.pending_tag} - {None}
    try:
        tags: set[str] = set(channel.qos._delivered) - channel.qos._dirty
    except RuntimeError:
        return None
    return asked | tags | refused | {request.message.delivery_tag for request in requests_in_hand()}


def requests_in_hand() -> list[Any]:
    """Return Celery's unfinished requests, retrying while threads of the pool change its weak set."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(state.reserved_requests)


def images_in(task_name: str, kwargs: Mapping[str, Any]) -> int:
    """Return the number of images in a message; 1 for an invalid one, which will fail at once."""
    if task_name != CLASSIFY_MANY:
        return 1
    images = kwargs.get("images")
    return max(1, len(images)) if isinstance(images, list) else 1
