"""A message wakes one of the waiting workers; if that worker does not respond, it wakes another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from queue import Empty, SimpleQueue

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub, set_event_loop

from producer.broker.urls import endpoint
from producer.contract.names import rung_name
from tests.chaos.takers import envelope
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery import transport
from worker.delivery.doorbell import Doorbell
from worker.delivery.names import DeliveryKeys

QUEUE = "nameshot.default"
OTHER = "nameshot.high"
TIMEOUT_S = 30
Wait = Callable[..., Doorbell]


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as broker:
        yield broker


@pytest.fixture
def wait(own_valkey: ValkeyServer) -> Iterator[Wait]:
    """Make doorbells that listen, in the role of a worker."""
    with ExitStack() as stack:

        def start(on_ring: Callable[[], None] = lambda: None, *queues: str) -> Doorbell:
            client = redis.Redis(connection_pool=redis.ConnectionPool.from_url(own_valkey.url(0, "worker")))
            bell = Doorbell(client, queues or (QUEUE,), on_ring)
            stack.callback(bell.close)
            bell.listen()
            return bell

        yield start


def await_waiting(broker: redis.Redis, count: int) -> None:
    eventually(lambda: broker.info("clients")["blocked_clients"] == count)


def test_a_message_wakes_one_of_twenty_waiting_workers(broker: redis.Redis, wait: Wait) -> None:
    woken: SimpleQueue[int] = SimpleQueue()
    bells: list[Doorbell] = []

    def come(number: int) -> None:
        bells[number].respond()
        woken.put(number)

    bells += [wait(partial(come, number)) for number in range(20)]
    await_waiting(broker, 20)
    broker.config_resetstat()

    broker.lpush(QUEUE, "job")

    woken.get(timeout=TIMEOUT_S)
    await_waiting(broker, 19)
    assert woken.empty()
    assert broker.info("commandstats")["cmdstat_blmove"]["calls"] == 1
    assert broker.lrange(rung_name(QUEUE), 0, -1) == [b"job"]


def test_several_messages_wake_as_many_workers(broker: redis.Redis, wait: Wait) -> None:
    woken: SimpleQueue[int] = SimpleQueue()
    bells: list[Doorbell] = []

    def come(number: int) -> None:
        bells[number].respond()
        woken.put(number)

    bells += [wait(partial(come, number)) for number in range(6)]
    await_waiting(broker, 6)

    broker.lpush(QUEUE, "a", "b", "c")

    assert len({woken.get(timeout=TIMEOUT_S) for _ in range(3)}) == 3
    await_waiting(broker, 3)
    assert woken.empty()
    assert broker.lrange(rung_name(QUEUE), 0, -1) == [b"c", b"b", b"a"]


def test_a_message_whose_woken_worker_does_not_respond_wakes_another(broker: redis.Redis, wait: Wait) -> None:
    rang = [threading.Event(), threading.Event()]
    wait(rang[0].set)
    await_waiting(broker, 1)
    others: list[Doorbell] = []

    def come() -> None:
        others[0].respond()
        rang[1].set()

    others.append(wait(come))
    await_waiting(broker, 2)

    broker.lpush(QUEUE, "job")

    assert all(each.wait(TIMEOUT_S) for each in rang)
    assert broker.lrange(rung_name(QUEUE), 0, -1) == [b"job"]


def test_a_message_that_wakes_only_a_busy_worker_goes_back_to_its_queue(broker: redis.Redis, wait: Wait) -> None:
    bell = wait()
    await_waiting(broker, 1)
    bell.respond()  # the worker found another message without being woken

    broker.lpush(QUEUE, "job")

    eventually(lambda: broker.lrange(QUEUE, 0, -1) == [b"job"])
    await_waiting(broker, 0)
    assert not broker.exists(rung_name(QUEUE))


def test_two_messages_in_two_queues_wake_a_worker_once_and_wait_in_their_queues(
    broker: redis.Redis, wait: Wait
) -> None:
    rings: SimpleQueue[str] = SimpleQueue()
    wait(lambda: rings.put("ring"), QUEUE, OTHER)
    await_waiting(broker, 2)

    with broker.pipeline(transaction=True) as both:
        both.lpush(QUEUE, "job")
        both.lpush(OTHER, "job")
        both.execute()

    rings.get(timeout=TIMEOUT_S)
    await_waiting(broker, 0)
    eventually(lambda: broker.llen(QUEUE) == broker.llen(OTHER) == 1)
    assert rings.empty()


def test_a_closed_doorbell_is_not_rung(broker: redis.Redis, wait: Wait) -> None:
    rang = threading.Event()
    bell = wait(rang.set)
    await_waiting(broker, 1)

    bell.close()
    await_waiting(broker, 0)
    broker.lpush(QUEUE, "job")

    assert broker.lrange(QUEUE, 0, -1) == [b"job"]
    assert not rang.is_set()


class Taker:
    """A worker's channel in an event loop, without the rest of a worker."""

    def __init__(self, valkey: ValkeyServer, stack: ExitStack) -> None:
        self.taken: SimpleQueue[str] = SimpleQueue()
        keys = DeliveryKeys("nameshot", "a-worker")
        with valkey.connect() as broker:
            broker.set(keys.lease, 1)
        options = {"queue_prefix": "nameshot", "worker_name": keys.worker, "priority_steps": [0]}
        url = valkey.url(0, "worker")
        connection = Connection(
            url,
            transport="worker.delivery.transport:AtomicTransport",
            transport_options={**options, "endpoint": endpoint(url, "the broker")},
        )
        self._hub = Hub()
        self._over = threading.Event()
        stack.callback(self._hub.close)
        set_event_loop(self._hub)
        stack.callback(set_event_loop, None)
        stack.enter_context(connection)
        connection.register_with_event_loop(self._hub)
        queues = [Queue(name, routing_key=name) for name in (QUEUE, OTHER)]
        stack.enter_context(Consumer(connection, queues=queues, callbacks=[self._take], accept=["json"]))
        thread = threading.Thread(target=self._turn)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._end)

    def _take(self, _body: object, message: object) -> None:
        self.taken.put(message.headers["id"])  # type: ignore[attr-defined] # kombu is untyped
        message.ack()  # type: ignore[attr-defined] # kombu is untyped

    def _turn(self) -> None:
        for _ in self._hub.create_loop():
            if self._over.is_set():
                return

    def _end(self) -> None:
        self._over.set()
        self._hub.call_soon(lambda: None)


def test_a_message_that_another_program_pushes_wakes_a_worker_without_polling(
    own_valkey: ValkeyServer, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "POLL_EVERY_S", 3_600)
    with ExitStack() as stack:
        taker = Taker(own_valkey, stack)
        for job_id in ("first", "second"):
            await_waiting(broker, 2)
            broker.lpush(QUEUE, envelope(job_id))
            assert taker.taken.get(timeout=TIMEOUT_S) == job_id
    assert not broker.exists(QUEUE, rung_name(QUEUE))


def test_a_message_whose_woken_worker_was_killed_is_found_by_polling(
    own_valkey: ValkeyServer, broker: redis.Redis
) -> None:
    with ExitStack() as stack:
        taker = Taker(own_valkey, stack)
        await_waiting(broker, 2)
        broker.lpush(rung_name(QUEUE), envelope("left"))  # Redis moved it to wake a worker that was then killed
        assert taker.taken.get(timeout=TIMEOUT_S) == "left"
        with pytest.raises(Empty):
            taker.taken.get_nowait()
