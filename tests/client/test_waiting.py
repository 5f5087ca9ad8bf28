"""A client waits for any number of jobs over one connection, and leaves nothing behind afterwards."""

import gc
import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from producer import BrokerUnavailable, Client, ResultTimeout
from producer.operations.answers import Answer
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


def subscriptions(valkey: ValkeyServer) -> int:
    with valkey.connect() as connection:
        return len(connection.pubsub_channels("*"))


def subscribers(valkey: ValkeyServer) -> int:
    with valkey.connect() as connection:
        return sum(int(client["sub"]) > 0 for client in connection.client_list())


def connections_of_ours(valkey: ValkeyServer) -> int:
    with valkey.connect() as connection:
        return sum(client["name"] == "nameshot" for client in connection.client_list())


def answer_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "nameshot-answers"}


def test_hundreds_of_awaited_jobs_need_one_subscriber(
    client: Client, worker: StockWorker, valkey: ValkeyServer
) -> None:
    jobs = client.submit_many([(URL, LABELS)] * 500)
    waiting = [client._listener.wait(job.id) for job in jobs]
    eventually(lambda: subscriptions(valkey) == 500)
    assert subscribers(valkey) == 1

    for job in jobs:
        worker.succeed(job.id, result_for(LABELS))

    assert {future.result(timeout=30).state for future in waiting} == {"succeeded"}
    eventually(lambda: subscriptions(valkey) == 0)


def test_threads_may_share_a_client(client: Client, worker: StockWorker, valkey: ValkeyServer) -> None:
    def classify(number: int) -> str:
        return client.classify(URL, [f"label {number}", "owl"], timeout=30).best.label

    with (
        worker.serving("default", lambda kwargs: result_for(kwargs["candidate_labels"])),
        ThreadPoolExecutor(16) as threads,
    ):
        best = list(threads.map(classify, range(200)))

    assert best == [f"label {number}" for number in range(200)]
    eventually(lambda: subscriptions(valkey) == 0)


def test_two_threads_may_wait_for_the_same_job(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(job.result, 10) for _ in range(2)]
        worker.succeed(job.id, result_for(LABELS))

        assert both[0].result() == both[1].result()


def test_a_second_wait_right_after_the_answer_gets_the_answer_too(client: Client, worker: StockWorker) -> None:
    """Redis has just announced the answer, on a subscription that has not ended yet."""
    for _ in range(50):
        job = client.submit(URL, LABELS)
        first = client._listener.wait(job.id)
        worker.succeed(job.id, result_for(LABELS))
        answer = first.result(timeout=10)

        assert client._listener.wait(job.id).result(timeout=10) == answer


def test_a_timeout_ends_the_subscription(client: Client, valkey: ValkeyServer) -> None:
    job = client.submit(URL, LABELS)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.1)

    eventually(lambda: subscriptions(valkey) == 0)


def test_a_wait_that_times_out_ends_no_other_wait_for_the_job(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS)
    patient = client._listener.wait(job.id)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.1)
    worker.succeed(job.id, result_for(LABELS))

    assert patient.result(timeout=10).state == "succeeded"


def test_an_idle_listener_closes_its_connection_and_connects_again_for_the_next_wait(
    client: Client, worker: StockWorker, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.client.waiting.IDLE_S", 0.05)
    job = client.submit(URL, LABELS)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.1)
    eventually(lambda: not subscribers(valkey))

    waiting = client._listener.wait(job.id)
    worker.succeed(job.id, result_for(LABELS))

    assert waiting.result(timeout=10).state == "succeeded"


def test_an_answer_arrives_while_redis_refuses_new_connections(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.client.waiting.IDLE_S", 0.05)
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client, own_valkey.connect() as operator:
        job = client.submit(URL, LABELS)
        with pytest.raises(ResultTimeout):
            job.result(timeout=0.1)
        worker = StockWorker(own_valkey)
        worker.succeed("another-id", result_for(LABELS))  # so that the worker is connected
        eventually(lambda: not subscribers(own_valkey))
        operator.config_set("maxclients", len(operator.client_list()))

        waiting = client._listener.wait(job.id)
        worker.succeed(job.id, result_for(LABELS))

        assert waiting.result(timeout=10).state == "succeeded"
        operator.config_set("maxclients", 10_000)
        worker.close()


def test_a_listener_pings_a_silent_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("producer.client.waiting.SILENCE_S", 0.05)
    job = client.submit(URL, LABELS)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.5)

    assert caplog.records == []  # Redis answered each ping, so the client dropped no connection


def test_a_listener_drops_a_connection_that_answers_no_ping(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("producer.client.waiting.SILENCE_S", 0.1)
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        job = client.submit(URL, LABELS)
        waiting = client._listener.wait(job.id)
        eventually(lambda: subscriptions(own_valkey) == 1)
        own_valkey.freeze()
        eventually(lambda: bool(caplog.records))
        own_valkey.stop()
        own_valkey.start()
        job.cancel()

        assert waiting.result(timeout=20).state == "cancelled"

    shown = f"redis://nameshot-producer:**@127.0.0.1:{own_valkey.port}/1"
    assert caplog.messages[0].startswith(f"answers: lost the connection to {shown} ")


def test_closing_ends_every_wait_and_every_connection(valkey: ValkeyServer) -> None:
    before = set(threading.enumerate())
    client = Client(valkey.broker_url, valkey.result_backend)
    job = client.submit(URL, LABELS)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(job.result, 30)
        eventually(lambda: subscriptions(valkey) == 1)
        client.close()

        with pytest.raises(BrokerUnavailable, match="the client was closed"):
            waiting.result(timeout=10)

    eventually(lambda: connections_of_ours(valkey) == 0)
    assert not answer_threads() - before


def test_a_wait_that_begins_while_the_client_closes_ends_too(client: Client) -> None:
    job = client.submit(URL, LABELS)
    waits: list[Future[Answer]] = []

    def begin_some() -> None:
        waits.extend(client._listener.wait(job.id) for _ in range(30))

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads are often interrupted at the critical points
    try:
        for round_ in range(200):
            client._listener.wait(job.id)
            threads = [threading.Thread(target=begin_some) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(round_ % 20 / 5000)
            client._listener.close()
            for thread in threads:
                thread.join()
            client._listener.close()  # some waits began after `close`, on a new listener
            assert not wait(waits, timeout=5).not_done
            waits.clear()
    finally:
        sys.setswitchinterval(interval_s)


def test_closing_at_any_moment_ends_promptly(valkey: ValkeyServer) -> None:
    started_s = time.monotonic()
    for pause_ms in range(40):
        client = Client(valkey.broker_url, valkey.result_backend)
        waiting = client._listener.wait(client.submit(URL, LABELS).id)
        time.sleep(pause_ms / 1000)  # while the listener connects, subscribes, reads answers or waits
        client.close()
        with pytest.raises(BrokerUnavailable):
            waiting.result(timeout=1)

    assert time.monotonic() - started_s < 20


def test_a_client_that_is_deleted_unclosed_leaves_no_thread_and_no_connection(valkey: ValkeyServer) -> None:
    before = set(threading.enumerate())
    client = Client(valkey.broker_url, valkey.result_backend)
    job = client.submit(URL, LABELS)
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.1)
    del client, job
    gc.collect()

    eventually(lambda: connections_of_ours(valkey) == 0)
    assert not answer_threads() - before


def test_a_client_that_is_deleted_on_its_listener_thread_leaves_no_thread_and_no_connection(
    valkey: ValkeyServer,
) -> None:
    """Python collects garbage on any thread that allocates, so the listener's own thread may delete the client."""
    before = set(threading.enumerate())
    clients = [Client(valkey.broker_url, valkey.result_backend)]
    with pytest.raises(ResultTimeout):
        clients[0].submit(URL, LABELS).result(timeout=0.1)
    running = clients[0]._listener._running
    assert running is not None

    def forget() -> None:
        clients.clear()
        gc.collect()

    running.loop.call_soon_threadsafe(forget)

    eventually(lambda: not answer_threads() - before)
    eventually(lambda: connections_of_ours(valkey) == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_waits_on_a_thread_of_its_own(client: Client, worker: StockWorker) -> None:
    first, second = client.submit_many([(URL, LABELS)] * 2)
    with pytest.raises(ResultTimeout):
        first.result(timeout=0.1)  # the parent's listener thread runs

    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if second.answer(timeout=10).state == "succeeded" else 1)
        except BaseException:
            os._exit(2)
    worker.succeed(second.id, result_for(LABELS))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert second.answer(timeout=10).state == "succeeded"
