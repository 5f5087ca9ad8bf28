"""kombu's Redis transport, in which one step takes a message and records its holder.

kombu pops a message with BRPOP and then records it as unacknowledged: a process killed in between loses it. Here one
script does both (`worker.delivery.scripts`), for messages of every producer. kombu still provides everything else, such
as the event loop, reconnecting and remote control.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Final

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import Empty
from kombu.transport.virtual import QoS as VirtualQoS
from redis.exceptions import NoScriptError

from producer.broker.dialling import CLASSES, connection_arguments
from producer.broker.scripting import ScriptingRedis, digest
from producer.broker.urls import Endpoint
from producer.contract.names import queue_name, rung_name, taken_name
from worker.concurrency.shares import WEIGHTS
from worker.concurrency.turns import Turns
from worker.delivery.acknowledging import AtomicQoS
from worker.delivery.declaring import Declaring
from worker.delivery.doorbell import Doorbell
from worker.delivery.envelope import MAX_MESSAGE_BYTES, read_envelope
from worker.delivery.letter_records import arguments, malformed_record
from worker.delivery.moves import acknowledge, postpone
from worker.delivery.names import DeliveryKeys, new_tag
from worker.delivery.outages import describe, name_of
from worker.delivery.replies import TakenMessage, well_formed
from worker.delivery.scripts import BURY, TAKE

logger = logging.getLogger(__name__)

#: An idle consumer polls at this interval, in case its doorbell fails.
POLL_EVERY_S: Final = 1.0
#: `TAKE` returns this to a worker without a lease: one that is shutting down or stuck, or could not reach Redis in
#: time.
NO_LEASE: Final = 0


class AtomicChannel(Declaring):
    """Takes messages with the script `TAKE`."""

    QoS = AtomicQoS
    #: Kombu sets this from the transport options: the name of this worker process.
    worker_name = ""
    #: The queues from which a message may be taken now; None for all. See `worker.jobs.consumer.ImageCredit`.
    takes: frozenset[str] | None = None
    #: The beginning of the delivery tag of a message that Redis may be delivering, until the channel has the message in
    #: hand: a large message takes long to arrive and to parse. The lease's thread reads this tag.
    pending_tag: str | None = None
    #: Why the last attempt to take a message failed, such as a missing permission; None if it did not fail.
    refusal: str | None = None
    #: The broker's address; the channel ignores what kombu reads from a URL.
    endpoint: Endpoint
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        *("queue_prefix", "worker_name", "endpoint"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._order = Turns(WEIGHTS)
        self._tried: frozenset[str] = frozenset()
        self._idle_since: float | None = None
        self._doorbell: Doorbell | None = None
        self._take: tuple[Any, ...] = ()
        super().__init__(*args, **kwargs)
        self.keys = DeliveryKeys(self.queue_prefix, self.worker_name)
        # Jobs that outlive this channel acknowledge through this client, which has connections of its own.
        self.holding = self.Client(connection_pool=redis.ConnectionPool(**self._connparams()))

    def _get_client(self) -> type[ScriptingRedis]:
        """Return the class of all clients of this channel."""
        return ScriptingRedis

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return arguments for redis-py's connections; kombu derives its own class from `connection_class`."""
        self.connection_class = CLASSES[self.endpoint.medium]
        return connection_arguments(self.endpoint, super()._connparams(asynchronous))

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send `TAKE`, unless the queues were empty a moment ago, none has opened, and the doorbell has not rung."""
        if self.takes_replies:
            super()._brpop_start(timeout)
            return
        opened = self.takes is not None and not self.takes <= self._tried
        if self._idle_since is not None and monotonic() - self._idle_since < POLL_EVERY_S and not opened:
            return
        if not self.active_queues or self.takes == frozenset():
            return
        queues = self._queues_in_order(first=self._doorbell.respond() if self._doorbell else None)
        rung, counters = map(rung_name, queues), map(taken_name, queues)
        keys = self.keys
        names = (*queues, *rung, *counters, keys.lease, keys.in_flight, keys.suspects, keys.in_hand, keys.workers)
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.pending_tag = new_tag()
        arguments = (self.pending_tag, MAX_MESSAGE_BYTES, len(queues), self.keys.worker)
        self._take = (len(names), *names, *arguments)
        self.client.connection.send_command("EVALSHA", digest(TAKE), *self._take)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply to `_brpop_start` and deliver the message."""
        if self.takes_replies:
            return bool(super()._brpop_read(**options))
        try:
            return self._read_taken(options)
        finally:  # a complete message is in hand by now; `Lease` must requeue an incomplete one
            self.pending_tag = None

    def _read_taken(self, options: dict[str, Any]) -> bool:
        try:
            with well_formed(self.client.connection.disconnect):
                reply = self._take_reply(options)
                taken = TakenMessage.read(reply, self.pending_tag) if isinstance(reply, list) else reply
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        except self.ResponseError as error:
            self._record_refusal(error)
            taken = NO_LEASE
        else:
            self._record_refusal(None)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not isinstance(taken, TakenMessage):
            self._idle_since = monotonic()
            if taken != NO_LEASE:
                self._listen_to_doorbell()
            raise Empty
        self._idle_since = None
        self._deliver_taken(taken)
        return True

    def _take_reply(self, options: dict[str, Any]) -> Any:
        """Return the reply to `TAKE`; if Redis does not have the script and so has not run it, send its text."""
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, "EVALSHA", **options)
        except NoScriptError:
            connection.send_command("EVAL", TAKE, *self._take)
            return self.client.parse_response(connection, "EVAL", **options)

    def _record_refusal(self, error: redis.RedisError | None) -> None:
        refusal = None if error is None else f"the broker refuses to hand out messages ({name_of(error)})"
        if refusal != self.refusal:
            if error is None:
                logger.info("the broker hands out messages again")
            else:
                logger.error("the broker refuses to hand out messages: %s", error)
        self.refusal = refusal

    def _deliver_taken(self, taken: TakenMessage) -> None:
        tag, queue, deaths = taken.tag, taken.queue, taken.deaths
        if (payload := read_envelope(taken.raw, tag=tag, queue=queue, deaths=deaths, known_as=taken.known_as)) is None:
            logger.warning("%d bytes from %s are not a Celery message: storing a dead letter", taken.size_bytes, queue)
            self._bury(tag, taken.size_bytes)
            return
        payload["properties"]["delivery_info"]["redelivered"] = deaths.count > 0
        self.connection._deliver(payload, queue)

    def postpone(self, delivery_tag: str, until_s: float) -> None:
        """Postpone a held message until a time in seconds since the epoch; then any worker may requeue it.

        If the broker refuses to postpone the message, `Lease` requeues it within seconds as an orphan.
        """
        try:
            postpone(self.holding, self.keys, delivery_tag, until_s)
        except self.ResponseError as error:
            logger.error("cannot postpone a message until its eta: %s; it is requeued instead", describe(error))
        VirtualQoS.ack(self.qos, delivery_tag)

    def _bury(self, tag: str, size_bytes: int) -> None:
        """Store an undeliverable message as a dead letter, or else drop it: otherwise it would be requeued forever."""
        burial = arguments(self.keys, tag, malformed_record(size_bytes=size_bytes), apart=tag, then="forget")
        try:
            self.holding.eval(BURY, *burial)
        except self.ResponseError as error:
            logger.warning("dropped a message that could not be stored as a dead letter: %s", describe(error))
            acknowledge(self.holding, self.keys, tag)

    def _queues_in_order(self, first: str | None) -> list[str]:
        """Return the queues to take from now, starting with the one whose turn it is.

        Args:
            first: the queue whose message woke this worker; it precedes the others, since the message woke no other
                worker.
        """
        names = [queue_name(self.queue_prefix, queue) for queue in self._order.next()]
        active = set(self.active_queues)
        if self.takes is not None:
            active &= self.takes
        self._tried = frozenset(active)
        return sorted((name for name in names if name in active), key=lambda name: name != first)

    def _listen_to_doorbell(self) -> None:
        if self._doorbell is None:
            client = self.Client(connection_pool=redis.ConnectionPool(**self._connparams()))
            self._doorbell = Doorbell(client, sorted(self.active_queues), self._wake)
        self._doorbell.listen(self._tried)

    def queues_changed(self) -> None:
        """Drop the doorbell; the next one waits only on queues that this worker consumes."""
        self.stop_waiting()
        self._doorbell = self._idle_since = None

    def stop_waiting(self) -> None:
        """Close the doorbell, since messages requeued at shutdown must wake other workers. Any thread may call this."""
        if (doorbell := self._doorbell) is not None:
            doorbell.close()

    def _wake(self) -> None:
        """Make the event loop take a message. The doorbell's threads call this."""
        self._idle_since = None
        wake_event_loop()

    def close(self) -> None:
        """Close the doorbell and the channel; messages in hand stay in hand."""
        self.stop_waiting()
        super().close()


def wake_event_loop() -> None:
    """Make the event loop check at once which messages it may take. Any thread may call this."""
    if (loop := get_event_loop()) is not None:
        loop.call_soon(lambda: None)


class AtomicTransport(kombu_redis.Transport):  # type: ignore[misc]  # kombu is untyped
    """The transport for ``redis://`` and ``rediss://``, which the setting ``broker_transport`` names."""

    Channel = AtomicChannel
    #: With this attribute, kombu does not parse the URL itself.
    can_parse_url = True

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:  # noqa: ARG002 - kombu's
        """Return the broker's URL for log lines; it holds no password."""
        return uri
