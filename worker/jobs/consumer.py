"""Adapts Celery's consumer: it limits images, not messages, logs no content, and reports the event loop's ticks.

The consumer class also switches gossip and mingle off, which only cost start-up time and traffic here. Celery has no
setting for them, and ``celery -A worker worker`` should need no options.
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
from worker.concurrency.threads import start_all_threads
from worker.delivery.credit import open_queues, queue_of
from worker.delivery.taken import TAKEN_HEADER
from worker.delivery.transport import wake_event_loop
from worker.jobs.messages import refuse
from worker.jobs.running_worker import worker_of
from worker.jobs.start_checks import refusal
from worker.runtime.shortages import is_shortage

logger = logging.getLogger(__name__)

#: The event loop ticks at this interval, which is much shorter than `worker.delivery.times.Times.loop_silent_s`.
TICK_S: Final = 1.0
#: While the broker is unreachable, the worker checks it at this interval.
ASK_EVERY_S: Final = 0.5
#: The worker connects no more often than this, so that connections that end at once do not flood the log.
RECONNECT_S: Final = 1.0


class QuietConsumer(Consumer):  # type: ignore[misc]  # celery is untyped
    """Celery's consumer without gossip and mingle, which never logs the content of an unusable message."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]  # celery is untyped
        """Celery's steps; after a shortage of memory, threads or open files, they reconnect instead of ending."""

        def start(self, parent: Any) -> None:
            """Start all steps and run until the last one ends."""
            try:
                super().start(parent)
            except Exception as error:
                if not is_shortage(error):
                    raise
                raise ConnectionError("no memory, threads or open files left") from error

    _connected_at_s = float("-inf")
    _lost_at_s: float | None = None

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_gossip": True, "without_mingle": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **options)
        self._worker = worker_of(self.app)

    def start(self) -> None:
        """Consume until a signal stops the worker; after an error that Celery does not handle, drain and end.

        Raises:
            SystemExit: with status 78 if the system allows too few threads, or 70 after an error as above.
        """
        self._worker.delivery.shutdown.install(self._stop_taking)
        try:
            start_all_threads(self.pool.executor, self.pool.limit)
        except RuntimeError:
            raise refusal(
                f"{self.pool.limit:,} images in flight (NAMESHOT_CONCURRENCY) need as many threads, but this system "
                "permits fewer: raise its limit (ulimit -Hu, TasksMax=, a container's limit of processes) or lower "
                "NAMESHOT_CONCURRENCY."
            ) from None
        try:
            super().start()
        except Exception as error:
            logger.critical("Unrecoverable error: %r", error, exc_info=True)
            self._worker.readiness.is_open = False
            self._worker.ready_file.update()
            self._worker.delivery.shutdown.fail()
            raise SystemExit(os.EX_SOFTWARE) from None

    def _stop_taking(self, number: int) -> None:
        """Start Celery's warm shutdown for any signal; Celery's own handlers would also prepare harder shutdowns."""
        status = os.EX_OK if number != signal.SIGINT else 1
        try:
            name = signal.Signals(number).name
            signals.worker_shutting_down.send(sender=self.hostname, sig=name, how="Warm", exitcode=status)
        finally:
            state.should_stop = status

    def connect(self) -> Any:
        """Connect to the broker once it accepts commands; check each server at the first contact with it."""
        time.sleep(max(0.0, self._connected_at_s + RECONNECT_S - time.monotonic()))
        if self.hub:
            # Kombu leaves the callbacks of former connections in the hub, and no longer treats a reset hub as the
            # current event loop, which doorbells must wake.
            self.hub.on_tick.clear()
            set_event_loop(self.hub)
        connection = super().connect()
        self._connected_at_s = time.monotonic()
        self._worker.first_contact.check()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker, then connect; Celery's own retries would be up to 30 s apart."""
        logged = False
        while problem := self._worker.readiness.broker_problem():
            if not logged:
                logger.warning("%s: this worker takes no jobs until the broker works again", problem)
                logged = True
            if not problem.endswith("does not answer"):
                self._worker.first_contact.check()  # a server that refuses commands may never become suitable
            state.maybe_shutdown()
            time.sleep(ASK_EVERY_S)
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Handle a connection that failed while it was being set up."""
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
        """Record that the worker consumes messages from now on."""
        super().on_ready()
        self._worker.readiness.is_consuming = True
        if self._lost_at_s is not None:
            logger.info("this worker takes jobs again, after %.1f s", time.monotonic() - self._lost_at_s)
            self._lost_at_s = None

    def on_unknown_task(self, _body: Any, message: Any, _error: Any) -> None:
        """Refuse a message whose task this worker does not have."""
        refuse(self, message, message.headers[TAKEN_HEADER].fault or "this worker does not have its task")

    def on_decode_error(self, message: Any, _error: Any) -> None:
        """Refuse a message in an unaccepted encoding; ignore a broadcast, which is not a job from a queue."""
        if self.task_consumer and message.channel is self.task_consumer.channel:
            refuse(self, message, "its body cannot be decoded")
        else:
            logger.warning("ignored a broadcast that cannot be decoded")

    def on_invalid_task(self, _body: Any, message: Any, _error: Any) -> None:
        """Refuse a message in which Celery cannot use a header, such as ``eta`` or ``expires``."""
        refuse(self, message, "a header, perhaps eta or expires, cannot be used")


class ImageCredit(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Lets the worker take from a queue only while fewer of the queue's images are in hand than may be in flight.

    Celery counts messages, but a bulk message holds up to 64 images. With Celery's count one worker would take most of
    the bulk queue while others are idle, and could not answer the last of its messages in time. An image counts until
    it has an outcome. Each queue has its own limit, so an image that stalls does not block the other queues.
    """

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Have each new channel check this limit before kombu's own."""
        worker, channel = worker_of(consumer.app), consumer.task_consumer.channel
        outcomes = worker.outcomes
        qos, prefix = channel.qos, channel.queue_prefix
        kombu_can_consume = qos.can_consume
        sizes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

        def can_consume(_qos: Any) -> bool:
            if worker.service.engine.unavailable_reason or worker.answers.outage.description:
                return False  # leave the messages to other workers; the event loop's next tick checks again
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

        def wake_if_limited() -> None:
            """Wake the event loop if an outcome may allow it to take from one more queue."""
            if channel.takes is not None and len(channel.takes) < len(channel.active_queues):
                wake_event_loop()

        outcomes.on_outcome = wake_if_limited
        qos.can_consume = MethodType(can_consume, qos)


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """While the event loop runs, reports its ticks to `Liveness` and the messages in hand to `Lease`."""

    requires = (Tasks,)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """Start the event loop's ticks."""
        worker, channel = worker_of(consumer.app), consumer.task_consumer.channel
        liveness, lease = worker.delivery.liveness, worker.delivery.lease
        liveness.tick()
        self._timer = consumer.timer.call_repeatedly(TICK_S, liveness.tick)
        lease.tags_in_hand = lambda: tags_in_hand(channel, worker.refusals.tags)
        lease.queues = lambda: channel.active_queues if worker.readiness.is_consuming else None
        lease.stop_waiting = channel.stop_waiting
        worker.readiness.broker_refusal = lambda: channel.refusal

    def stop(self, consumer: Any) -> None:
        """Stop the ticks, because the event loop ends or waits for the broker."""
        if self._timer is not None:
            self._timer.cancel()
        delivery = worker_of(consumer.app).delivery
        delivery.liveness.pause()
        delivery.lease.tags_in_hand = delivery.lease.queues = lambda: None

    shutdown = stop


def tags_in_hand(channel: Any, refused: set[str]) -> set[str] | None:
    """Return the delivery tags of all messages in hand; None if the messages change during the call.

    This function reads the channel's pending tag before the delivered messages, because a message that is pending at
    first is then among the delivered ones.

    Args:
        channel: the current channel; Celery's requests include the jobs of former channels.
        refused: the tags of messages that are being refused, from any channel.
    """
    asked = {channel.pending_tag} - {None}
    try:
        tags: set[str] = set(channel.qos._delivered) - channel.qos._dirty
    except RuntimeError:
        return None
    return asked | tags | refused | {request.message.delivery_tag for request in requests_in_hand()}


def requests_in_hand() -> list[Any]:
    """Return Celery's unfinished requests; try again if a thread of the pool changes Celery's set during the copy."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(state.reserved_requests)


def images_in(task_name: str, kwargs: Mapping[str, Any]) -> int:
    """Return the number of images in a message; 1 for an invalid message, which fails at once."""
    if task_name != CLASSIFY_MANY:
        return 1
    images = kwargs.get("images")
    return max(1, len(images)) if isinstance(images, list) else 1
