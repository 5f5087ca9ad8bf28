"""kombu's Redis transport, in which taking a message and recording who holds it are one step.

kombu pops a message with BRPOP and records it as unacknowledged afterwards: a process killed in between loses it.
Here one script does both (`worker.delivery.scripts`), for messages of every producer. What else kombu does stays:
the event loop, reconnecting, remote control.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import Empty
from kombu.transport.virtual import QoS as VirtualQoS
from kombu.utils.encoding import bytes_to_str

from producer.broker.dialling import CLASSES, connection_arguments
from producer.broker.urls import Endpoint
from producer.contract import queue_name, rung_name, taken_name
from worker.concurrency.fairness import FairOrder
from worker.delivery.clock import elapsed_s
from worker.delivery.dead_letters import arguments, malformed_record
from worker.delivery.declaring import Declaring
from worker.delivery.doorbell import Doorbell
from worker.delivery.envelope import MAX_MESSAGE_BYTES, read_envelope
from worker.delivery.held import acknowledge, give_back
from worker.delivery.names import DEATHS_ALONE_HEADER, DEATHS_HEADER, TAKEN_HEADER, DeliveryKeys, new_tag
from worker.delivery.outages import name_of
from worker.delivery.scripts import BURY, POSTPONE, TAKE

logger = logging.getLogger(__name__)

#: An idle consumer looks this often by itself, should its doorbell be out of order.
LOOK_EVERY_S: Final = 1.0
#: What `TAKE` answers a worker that leaves, or that Redis was away from for too long.
NO_LEASE: Final = 0


class AtomicQoS(kombu_redis.QoS):  # type: ignore[misc]  # kombu is untyped
    """Acknowledges and returns messages by their delivery tag; what is not ours any more stays as it is."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that `TAKE` has recorded already."""
        VirtualQoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message for good."""
        try:
            acknowledge(self.channel.holding, self.channel.keys, delivery_tag)
        finally:  # what is still recorded, and not in hand, goes back: see `Lease`
            VirtualQoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget it, or put it back to the front of its queue, where its number is known (`worker.delivery.lua`)."""
        if requeue:
            try:
                give_back(self.channel.holding, self.channel.keys, delivery_tag)
            finally:
                VirtualQoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Nothing: a channel also closes when its connection breaks, and then what is in hand goes on.

        The process returns what it holds when it leaves; see `worker.delivery.lease`.
        """
        # Or the registry of finalizers keeps this, and with it the channel of each connection that was.
        self._on_collect.cancel()

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing times out here: leases end, and `worker.delivery.lease` sees to that."""


class AtomicChannel(Declaring):
    """Takes messages by script."""

    QoS = AtomicQoS
    #: From the transport options: the queue prefix, and the name of this worker process.
    queue_prefix = ""
    worker_name = ""
    #: The queues from which a message may be taken now; None: all. See `worker.jobs.consumer.ImageCredit`.
    takes: frozenset[str] | None = None
    #: The beginning of the delivery tag of what Redis may be handing out, until that is noted among what is in hand: a
    #: large message is long under way, and is parsed before. Read by the lease's thread.
    pending_tag: str | None = None
    #: Why no message was taken when this was last tried: a permission that is missing, say. None where nothing kept it.
    refusal: str | None = None
    #: Where the broker is; what kombu reads from a URL is not used.
    endpoint: Endpoint
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        *("queue_prefix", "worker_name", "endpoint"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._order = FairOrder()
        self._asked: frozenset[str] = frozenset()
        self._idle_since: float | None = None
        self._doorbell: Doorbell | None = None
        super().__init__(*args, **kwargs)
        self.keys = DeliveryKeys(self.queue_prefix, self.worker_name)
        # Jobs that outlive this channel acknowledge through it all the same: its connections are not the channel's.
        self.holding = self.Client(connection_pool=redis.ConnectionPool(**self._connparams()))

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """For redis-py's connections; kombu derives the event loop's class of them from `connection_class`."""
        self.connection_class = CLASSES[self.endpoint.medium]
        kombus = super()._connparams(asynchronous)
        of_the_url = {"host", "port", "username", "password", "db"}
        return connection_arguments(
            self.endpoint, {name: value for name, value in kombus.items() if name not in of_the_url}
        )

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for a message, unless the queues were empty a moment ago and nobody rang since."""
        if self.takes_replies:
            super()._brpop_start(timeout)
            return
        opened = self.takes is not None and not self.takes <= self._asked
        if self._idle_since is not None and monotonic() - self._idle_since < LOOK_EVERY_S and not opened:
            return
        if not self.active_queues or self.takes == frozenset():
            return
        queues = self._queues_in_order(first=self._doorbell.answer() if self._doorbell else None)
        rung, counters = map(rung_name, queues), map(taken_name, queues)
        keys = self.keys
        names = (*queues, *rung, *counters, keys.lease, keys.in_flight, keys.suspects, keys.in_hand, keys.workers)
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.pending_tag = new_tag()
        arguments = (self.pending_tag, MAX_MESSAGE_BYTES, len(queues), self.keys.worker)
        self.client.connection.send_command("EVAL", TAKE, len(names), *names, *arguments)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the answer to `_brpop_start` and hand the message on."""
        if self.takes_replies:
            return bool(super()._brpop_read(**options))
        try:
            return self._read_taken(options)
        finally:  # a message that came is noted by now, and what was cut off is to go back
            self.pending_tag = None

    def _read_taken(self, options: dict[str, Any]) -> bool:
        try:
            taken = self.client.parse_response(self.client.connection, "EVAL", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        except self.ResponseError as error:
            self._note_refusal(error)
            taken = NO_LEASE
        else:
            self._note_refusal(None)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not isinstance(taken, list):
            self._idle_since = monotonic()
            if taken != NO_LEASE:
                self._listen_to_doorbell()
            raise Empty
        self._idle_since = None
        self._hand_on(taken)
        return True

    def _note_refusal(self, error: redis.RedisError | None) -> None:
        refusal = None if error is None else f"the broker refuses to hand out messages ({name_of(error)})"
        if refusal != self.refusal:
            if error is None:
                logger.info("the broker hands out messages again")
            else:
                logger.error("the broker refuses to hand out messages: %s", error)
        self.refusal = refusal

    def _hand_on(self, taken: Sequence[Any]) -> None:
        raw, size_bytes = taken[1], taken[4]
        queue, tag = bytes_to_str(taken[0]), bytes_to_str(taken[5])
        deaths, alone = int(taken[2]), int(taken[3])
        past = {DEATHS_HEADER: deaths, DEATHS_ALONE_HEADER: alone, TAKEN_HEADER: elapsed_s()}
        if (payload := read_envelope(raw, tag=tag, queue=queue, headers=past, known_as=taken[6])) is None:
            logger.warning("took %d bytes from %s that are not a Celery message: a dead letter", size_bytes, queue)
            self._bury(tag, size_bytes)
            return
        payload["properties"]["delivery_info"]["redelivered"] = deaths > 0
        self.connection._deliver(payload, queue)

    def postpone(self, delivery_tag: str, until_s: float) -> None:
        """Put a message that is held aside until a time, seconds since the epoch; any worker then queues it again."""
        names = (self.keys.in_flight, self.keys.in_hand, self.keys.postponed)
        self.holding.eval(POSTPONE, len(names), *names, delivery_tag, until_s)
        self.qos.ack(delivery_tag)

    def _bury(self, tag: str, size_bytes: int) -> None:
        """Keep what cannot be handed on; what cannot be kept either is dropped, or it would come again and again."""
        burial = arguments(self.keys, tag, malformed_record(size_bytes=size_bytes), apart=tag, then="forget")
        try:
            self.holding.eval(BURY, *burial)
        except self.ResponseError as error:
            logger.warning("could not keep it as a dead letter: %s", type(error).__name__)
            acknowledge(self.holding, self.keys, tag)

    def _queues_in_order(self, first: str | None) -> list[str]:
        """The queues that this worker takes from now, the one whose turn it is first.

        Args:
            first: the queue whose message woke this worker, before all others: no other worker is on the way to it.
        """
        names = [queue_name(self.queue_prefix, queue) for queue in self._order.next()]
        active = set(self.active_queues)
        if self.takes is not None:
            active &= self.takes
        self._asked = frozenset(active)
        return sorted((name for name in names if name in active), key=lambda name: name != first)

    def _listen_to_doorbell(self) -> None:
        if self._doorbell is None:
            client = self.Client(connection_pool=redis.ConnectionPool(**self._connparams()))
            self._doorbell = Doorbell(client, sorted(self.active_queues), self._wake)
        self._doorbell.listen(self._asked)

    def queues_changed(self) -> None:
        """Wait for those from which this worker takes, and move no message of the others."""
        self.stop_waiting()
        self._doorbell = self._idle_since = None

    def stop_waiting(self) -> None:
        """Be woken no more, from any thread: what the process gives back as it ends is for others."""
        if (doorbell := self._doorbell) is not None:
            doorbell.close()

    def _wake(self) -> None:
        """A queue holds a message: have the event loop ask for it. Called from the doorbell's threads."""
        self._idle_since = None
        if (loop := get_event_loop()) is not None:
            loop.call_soon(lambda: None)

    def close(self) -> None:
        """Stop waiting; what is in hand stays there."""
        self.stop_waiting()
        super().close()


class AtomicTransport(kombu_redis.Transport):  # type: ignore[misc]  # kombu is untyped
    """``redis://`` and ``rediss://``; named by the worker's ``broker_transport``."""

    Channel = AtomicChannel
    #: So that kombu reads no URL.
    can_parse_url = True

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:  # noqa: ARG002 - kombu's
        """The broker, for people."""
        return uri
