"""What this worker's consumer does differently from Celery's: no gossip, no content in logs, credit, a pulse, patience.

Celery has no configuration key for gossip and mingle, which only cost start-up time and chatter here, so the
consumer class of the configuration switches them off and a plain ``celery -A worker worker`` is right.
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
from kombu.asynchronous import get_event_loop, set_event_loop

from producer.contract import CLASSIFY_MANY, Queue, queue_name
from worker.delivery.credit import open_queues, queue_of
from worker.delivery.names import FAULT_HEADER
from worker.jobs.messages import refuse

logger = logging.getLogger(__name__)

#: The watch over the loop counts in tens of these.
TICK_S: Final = 1.0
#: A broker that is away is asked so often whether it is back.
ASK_EVERY_S: Final = 0.5
#: At least so long from one connection to the next, should each end at once: a log is no place for thousands of them.
RECONNECT_S: Final = 1.0


class QuietConsumer(Consumer):  # type: ignore[misc]  # celery is untyped
    """Celery's consumer without gossip and mingle, which never prints what it cannot use.

    Attributes:
        app: is told whether its messages are consumed (`Nameshot.is_consuming`).
    """

    _connected_at_s = float("-inf")
    _lost_at_s: float | None = None

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_gossip": True, "without_mingle": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **options)

    def start(self) -> None:
        """Consume until told to stop; after an error that Celery calls unrecoverable, end in the usual time."""
        self.app.delivery.departure.install(self._stop_taking)
        try:
            super().start()
        except Exception:
            self.app.delivery.departure.fail()
            raise

    def _stop_taking(self, number: int) -> None:
        """Celery's warm shutdown, whatever signal it is: its own handlers put others, harder ones, in their place."""
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
            # kombu leaves there what asked for the messages of each connection that was; and a loop that was reset is
            # no more the current one, by which doorbells wake it.
            self.hub.on_tick.clear()
            set_event_loop(self.hub)
        connection = super().connect()
        self._connected_at_s = time.monotonic()
        self.app.first_contact.look()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker, and connect; Celery's own tries come ever more seldom, at last each 30 s."""
        said = False
        while complaint := self.app.readiness.broker_complaint():
            if not said:
                logger.warning("%s: no job is taken until it does", complaint)
                said = True
            if not complaint.endswith("does not answer"):
                self.app.first_contact.look()  # a server that answers so may be none that will ever do
            state.maybe_shutdown()
            time.sleep(ASK_EVERY_S)
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """The broker went away again while it was being connected to."""
        self._lose()
        super().on_connection_error_before_connected(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """The connection broke, or the broker answered with an error."""
        self._lose()
        super().on_connection_error_after_connected(exc)

    def _lose(self) -> None:
        self.app.is_consuming = False
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()

    def on_ready(self) -> None:
        """Messages are consumed from now on."""
        super().on_ready()
        self.app.is_consuming = True
        if self._lost_at_s is not None:
            logger.info("jobs are taken again, after %.1f s", time.monotonic() - self._lost_at_s)
            self._lost_at_s = None

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """It names no task."""
        self._refuse(message, "it names no task")

    def on_unknown_task(self, _body: Any, message: Any, _error: Any) -> None:
        """Nothing here has the name of its task."""
        self._refuse(message, message.headers.get(FAULT_HEADER) or "its task is not known here")

    def on_decode_error(self, message: Any, _error: Any) -> None:
        """It is in no encoding that is accepted here. A broadcast has not been taken from a queue, and is no job."""
        if self.task_consumer and message.channel is self.task_consumer.channel:
            self._refuse(message, "it cannot be decoded")
        else:
            logger.warning("ignored a broadcast that cannot be decoded")

    def on_invalid_task(self, _body: Any, message: Any, _error: Any) -> None:
        """A header that Celery needs is wrong, ``eta`` or ``expires``."""
        self._refuse(message, "a header cannot be used, eta or expires perhaps")

    def _refuse(self, message: Any, fault: str) -> None:
        refuse(
            self,
            message,
            fault,
            lambda: self.call_soon_ack(message.ack_log_error, logger, self.connection_errors),
        )


class ImageCredit(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Takes a queue's messages only while fewer of its images are in hand than may be in flight.

    Celery counts messages; a bulk message holds up to 64 images. Counted so, one worker would hoard the bulk
    queue while its peers idle, and the last message it took could not be answered within its time. An image counts
    until it has its outcome, and one that stalls keeps no other queue waiting.
    """

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Put the count before kombu's own, on each new channel."""
        channel, outcomes = consumer.task_consumer.channel, consumer.app.outcomes
        qos, prefix = channel.qos, channel.queue_prefix
        kombu_can_consume = qos.can_consume
        sizes: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

        def can_consume(_qos: Any) -> bool:
            app = consumer.app
            if not app.service.engine.is_available or app.backend.outage.ailment:
                return False  # others may do better; the loop's next tick looks again
            if len(app.refusals) >= consumer.pool.num_processes:
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
            """Have the event loop count anew, where an outcome may let it take another message."""
            if channel.takes is not None and len(channel.takes) < len(channel.active_queues):
                wake_event_loop()

        outcomes.on_outcome = look_again
        qos.can_consume = MethodType(can_consume, qos)


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
    """Shows that the event loop runs, while there is one, and what is in hand."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self._timer: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Tick from the loop's own timer."""
        vitality = consumer.app.delivery.vitality
        vitality.tick()
        self._timer = consumer.timer.call_repeatedly(TICK_S, vitality.tick)
        channel = consumer.task_consumer.channel
        refusals = consumer.app.refusals
        consumer.app.delivery.lease.tags_in_hand = lambda: tags_in_hand(channel, refusals.tags)
        consumer.app.delivery.lease.stop_waiting = channel.stop_waiting
        consumer.app.refusal = lambda: channel.refusal

    def stop(self, consumer: Any) -> None:
        """The loop ends, or waits for the broker."""
        if self._timer is not None:
            self._timer.cancel()
        consumer.app.delivery.vitality.pause()
        consumer.app.delivery.lease.tags_in_hand = lambda: None

    shutdown = stop


def tags_in_hand(channel: Any, refused: set[str]) -> set[str] | None:
    """Delivery tags of all messages that this process knows of; None when they change while being counted.

    Each place is looked at before the one that a message goes to next.

    Args:
        channel: the present one. Jobs of channels before it are found among Celery's reserved requests.
        refused: tags of the messages that are being refused, of whichever channel.
    """
    asked = {channel.tag_asked_with} - {None}
    try:
        tags: set[str] = set(channel.qos._delivered) - channel.qos._dirty
    except RuntimeError:
        return None
    return asked | tags | refused | {request.message.delivery_tag for request in requests_in_hand()}


def requests_in_hand() -> list[Any]:
    """What Celery has taken and not finished; threads of the pool change its weak set while it is read."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(state.reserved_requests)


def wake_event_loop() -> None:
    """Have the event loop look at once what it may take; from any thread."""
    if (loop := get_event_loop()) is not None:
        loop.call_soon(lambda: None)


def images_in(task_name: str, kwargs: Mapping[str, Any]) -> int:
    """How many images a message holds; 1 where that cannot be told, since it will fail at once."""
    if task_name != CLASSIFY_MANY:
        return 1
    try:
        return max(1, len(kwargs["images"]))
    except (LookupError, TypeError):
        return 1
