"""Redis is down, silent or full, or refuses: a call raises one sentence within three seconds, and a wait goes on."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from producer import BrokerUnavailable, Client
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
PROMISED_S = 3.0

CALLS: dict[str, Callable[[Client], object]] = {
    "submit": lambda client: client.submit(URL, LABELS),
    "submit_many": lambda client: client.submit_many([(URL, LABELS)] * 3),
    "status": lambda client: client.job("a").status(),
    "result": lambda client: client.job("a").result(timeout=60),
    "cancel": lambda client: client.job("a").cancel(),
    "forget": lambda client: client.job("a").forget(),
    "backlog": lambda client: client.backlog(),
    "queue_depths": lambda client: client.queue_depths(),
}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that neither accepts nor refuses a connection, because its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
        for filler in fillers:
            filler.close()


def unavailable(call: Callable[[Client], object], client: Client) -> str:
    """Return the sentence that the call raises within the promised time."""
    started_s = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        call(client)
    assert time.monotonic() - started_s < PROMISED_S
    return str(caught.value)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_to_a_closed_port_says_that_redis_cannot_be_reached(name: str, closed_url: str) -> None:
    with Client(closed_url, closed_url) as client:
        sentence = unavailable(CALLS[name], client)

    assert "cannot be reached" in sentence
    assert "s3cret" not in sentence
    assert "queued" not in sentence  # nothing was sent, and the sentence does not suggest that it was


def all_unavailable(clients: dict[str, Client]) -> dict[str, str]:
    """Return the sentence that each call raises. All calls wait at the same time, each with its own client."""
    with ThreadPoolExecutor(len(CALLS)) as threads:
        waiting = {name: threads.submit(unavailable, CALLS[name], clients[name]) for name in CALLS}
        return {name: future.result() for name, future in waiting.items()}


def test_a_network_that_drops_all_packets_is_reported_in_time(silent_port: int) -> None:
    url = f"redis://127.0.0.1:{silent_port}/0"
    with ExitStack() as stack:
        sentences = all_unavailable({name: stack.enter_context(Client(url, url)) for name in CALLS})

    assert [name for name in CALLS if "did not reply in time" not in sentences[name]] == []


def test_a_redis_that_hangs_between_two_calls_is_reported_in_time(own_valkey: ValkeyServer) -> None:
    with ExitStack() as stack:
        urls = own_valkey.broker_url, own_valkey.result_backend
        clients = {name: stack.enter_context(Client(*urls)) for name in CALLS}
        for client in clients.values():
            client.submit(URL, LABELS, job_id="a")
            client.job("a").status()
        own_valkey.freeze()

        sentences = all_unavailable(clients)

    assert [name for name in CALLS if "did not reply in time" not in sentences[name]] == []
    assert {name for name in CALLS if "may have been queued" in sentences[name]} == {"submit", "submit_many"}


def test_a_job_that_may_or_may_not_be_queued_can_be_submitted_again(own_valkey: ValkeyServer) -> None:
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        client.queue_depths()
        own_valkey.freeze()
        with pytest.raises(BrokerUnavailable, match="Job order-17 may have been queued"):
            client.submit(URL, LABELS, job_id="order-17")
        own_valkey.stop()
        own_valkey.start()

        client.submit(URL, LABELS, job_id="order-17")

        assert client.queue_depths()["default"] == 1


def test_a_restart_between_two_calls_goes_unnoticed(own_valkey: ValkeyServer) -> None:
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        client.submit(URL, LABELS, job_id="a")
        own_valkey.stop()
        own_valkey.start()

        client.submit(URL, LABELS, job_id="b")

        assert client.queue_depths()["default"] == 2


def test_a_call_whose_connection_breaks_is_sent_again(own_valkey: ValkeyServer) -> None:
    with (
        own_valkey.connect() as connection,
        Client(own_valkey.broker_url, own_valkey.result_backend) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        client.queue_depths()
        connection.client_pause(timeout=10_000, all=False)  # commands that write wait
        submitting = thread.submit(client.submit, URL, LABELS)
        eventually(lambda: any(each["cmd"] == "evalsha" for each in connection.client_list()))
        connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        connection.client_unpause()

        assert submitting.result(timeout=10).status() == "queued"
        assert client.queue_depths()["default"] == 1


def test_a_wrong_password_is_not_reported_as_an_unreachable_redis(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path) as server, server.connect() as operator:
        operator.execute_command("ACL", "SETUSER", "default", "resetpass", ">right")
        for password in ("", ":wr0ng@"):
            url = server.url(0).replace("//", f"//{password}")
            with Client(url, url) as client:
                sentence = unavailable(CALLS["submit"], client)
            assert "refused the user name or password; correct them in NAMESHOT_BROKER_URL" in sentence
            assert "wr0ng" not in sentence


def test_another_kind_of_server_on_the_port_is_named_as_such() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"redis://127.0.0.1:{server.server_port}/0"
        with Client(url, url) as client:
            sentence = unavailable(CALLS["submit"], client)

    assert "is not a Redis server" in sentence
    assert "queued" not in sentence


def test_a_redis_user_without_the_right_to_run_scripts_is_named_as_the_cause(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as connection:
        connection.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@read", "+client", "+select")
    url = own_valkey.url(0).replace("//", "//reader:pw@")
    with Client(url, url) as client:
        assert "does not permit this user" in unavailable(CALLS["submit"], client)


def test_a_user_who_may_not_begin_a_transaction_is_told_which_right_is_missing(own_valkey: ValkeyServer) -> None:
    own_valkey.permit("producer", without=("multi",))
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        sentence = unavailable(lambda client: client.job("a").status(), client)

    assert "refused MULTI; use a user who may run it, create new rules with `nameshot acl`" in sentence


def test_a_redis_without_memory_queues_no_job_and_claims_no_id(own_valkey: ValkeyServer) -> None:
    with (
        own_valkey.connect() as connection,
        Client(own_valkey.broker_url, own_valkey.result_backend) as client,
    ):
        connection.config_set("maxmemory", 1)
        assert "out of memory" in unavailable(lambda client: client.submit(URL, LABELS, job_id="a"), client)
        connection.config_set("maxmemory", 0)

        assert client.job("a").status() == "unknown"
        assert client.queue_depths()["default"] == 0


def test_a_replica_is_named_as_the_cause(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as connection:
        connection.execute_command("REPLICAOF", "127.0.0.1", "1")
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        assert "read-only replica" in unavailable(CALLS["submit"], client)


def test_if_another_program_overwrote_the_queue_no_id_is_claimed(client: Client, valkey: ValkeyServer) -> None:
    with valkey.connect() as connection:
        connection.set("nameshot.default", "not a list")

    assert "refused a command" in unavailable(lambda client: client.submit(URL, LABELS, job_id="a"), client)
    assert client.job("a").status() == "unknown"


def test_a_client_that_waits_through_a_restart_gets_the_answer(own_valkey: ValkeyServer) -> None:
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        before, after = client.submit_many([(URL, LABELS)] * 2)
        waiting = [client._listener.wait(job.id) for job in (before, after)]
        wait_for_subscriptions(own_valkey, 2)

        own_valkey.stop()
        own_valkey.start()
        worker = StockWorker(own_valkey)
        # The client may not have subscribed again yet, and then misses the announcement.
        worker.succeed(before.id, result_for(LABELS))
        wait_for_subscriptions(own_valkey, 1)
        worker.succeed(after.id, result_for(LABELS))

        assert [future.result(timeout=20).state for future in waiting] == ["succeeded", "succeeded"]
        worker.close()


def test_a_client_that_waits_for_a_job_that_redis_lost_gets_job_not_found(tmp_path: Path) -> None:
    forgetful = ValkeyServer(tmp_path, options=("--appendonly", "no"))
    with forgetful, Client(forgetful.broker_url, forgetful.result_backend) as client:
        job = client.submit(URL, LABELS)
        waiting = client._listener.wait(job.id)
        wait_for_subscriptions(forgetful, 1)

        forgetful.stop()
        forgetful.start()

        assert waiting.result(timeout=20).state == "unknown"


def test_a_cut_subscription_is_renewed(client: Client, worker: StockWorker, valkey: ValkeyServer) -> None:
    job = client.submit(URL, LABELS)
    waiting = client._listener.wait(job.id)
    wait_for_subscriptions(valkey, 1)
    with valkey.connect() as connection:
        connection.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    worker.succeed(job.id, result_for(LABELS))

    assert waiting.result(timeout=20).state == "succeeded"


def test_a_redis_that_stays_down_ends_the_wait(own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.client.waiting.OUTAGE_S", 0.5)
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        job = client.submit(URL, LABELS)
        stopping = threading.Timer(0.2, own_valkey.stop)
        stopping.start()

        with pytest.raises(BrokerUnavailable, match=r"Redis was down for more than 0\.5 s"):
            job.result(timeout=30)

        stopping.join()


def wait_for_subscriptions(valkey: ValkeyServer, number: int) -> None:
    with valkey.connect() as connection:
        eventually(lambda: len(connection.pubsub_channels("celery-task-meta-*")) >= number)
