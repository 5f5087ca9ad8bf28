"""Redis is away, mute, full or strict: one sentence within three seconds, or patience while waiting."""

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
    """A port that accepts no connection and refuses none: its backlog is full."""
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
    """The sentence that the call raises, within the promised time."""
    started_s = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        call(client)
    assert time.monotonic() - started_s < PROMISED_S
    return str(caught.value)


@pytest.mark.parametrize("name", CALLS)
def test_nobody_listens(name: str, closed_url: str) -> None:
    with Client(closed_url, closed_url) as client:
        sentence = unavailable(CALLS[name], client)

    assert "cannot be reached" in sentence
    assert "s3cret" not in sentence
    assert "queued" not in sentence  # nothing was sent, and nothing else is suggested


def all_unavailable(clients: dict[str, Client]) -> dict[str, str]:
    """The sentence that each call raises. All calls wait at the same time, each through a client of its own."""
    with ThreadPoolExecutor(len(CALLS)) as threads:
        waiting = {name: threads.submit(unavailable, CALLS[name], clients[name]) for name in CALLS}
        return {name: future.result() for name, future in waiting.items()}


def test_the_network_swallows_everything(silent_port: int) -> None:
    url = f"redis://127.0.0.1:{silent_port}/0"
    with ExitStack() as stack:
        sentences = all_unavailable({name: stack.enter_context(Client(url, url)) for name in CALLS})

    assert [name for name in CALLS if "did not reply in time" not in sentences[name]] == []


def test_redis_hangs_between_two_calls(own_valkey: ValkeyServer) -> None:
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


def test_a_job_of_doubtful_fate_can_be_submitted_again(own_valkey: ValkeyServer) -> None:
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


def test_a_connection_that_breaks_in_the_midst_of_a_call_is_tried_again(own_valkey: ValkeyServer) -> None:
    with (
        own_valkey.connect() as connection,
        Client(own_valkey.broker_url, own_valkey.result_backend) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        client.queue_depths()
        connection.client_pause(timeout=10_000, all=False)  # what writes waits
        submitting = thread.submit(client.submit, URL, LABELS)
        eventually(lambda: any(each["cmd"] == "evalsha" for each in connection.client_list()))
        connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        connection.client_unpause()

        assert submitting.result(timeout=10).status() == "queued"
        assert client.queue_depths()["default"] == 1


def test_a_wrong_password_is_not_called_an_absence(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path) as server, server.connect() as operator:
        operator.execute_command("ACL", "SETUSER", "default", "resetpass", ">right")
        for password in ("", ":wr0ng@"):
            url = server.url(0).replace("//", f"//{password}")
            with Client(url, url) as client:
                sentence = unavailable(CALLS["submit"], client)
            assert "refused the user name or password; correct them in NAMESHOT_BROKER_URL" in sentence
            assert "wr0ng" not in sentence


def test_another_server_on_the_port_is_named_as_one() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"redis://127.0.0.1:{server.server_port}/0"
        with Client(url, url) as client:
            sentence = unavailable(CALLS["submit"], client)

    assert "is not a Redis server" in sentence
    assert "queued" not in sentence


def test_a_user_who_may_not_run_scripts_is_told_so(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as connection:
        connection.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@read", "+client", "+select")
    url = own_valkey.url(0).replace("//", "//reader:pw@")
    with Client(url, url) as client:
        assert "does not permit this user" in unavailable(CALLS["submit"], client)


def test_a_redis_without_memory_takes_nothing_and_claims_nothing(own_valkey: ValkeyServer) -> None:
    with (
        own_valkey.connect() as connection,
        Client(own_valkey.broker_url, own_valkey.result_backend) as client,
    ):
        connection.config_set("maxmemory", 1)
        assert "out of memory" in unavailable(lambda client: client.submit(URL, LABELS, job_id="a"), client)
        connection.config_set("maxmemory", 0)

        assert client.job("a").status() == "unknown"
        assert client.queue_depths()["default"] == 0


def test_a_replica_is_named_as_one(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as connection:
        connection.execute_command("REPLICAOF", "127.0.0.1", "1")
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        assert "read-only replica" in unavailable(CALLS["submit"], client)


def test_another_programs_key_in_the_queues_place_claims_nothing(client: Client, valkey: ValkeyServer) -> None:
    with valkey.connect() as connection:
        connection.set("nameshot.default", "not a list")

    assert "refused a command" in unavailable(lambda client: client.submit(URL, LABELS, job_id="a"), client)
    assert client.job("a").status() == "unknown"


def test_who_waits_through_a_restart_gets_the_answer(own_valkey: ValkeyServer) -> None:
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        before, after = client.submit_many([(URL, LABELS)] * 2)
        waiting = [client._listener.wait(job.id) for job in (before, after)]
        wait_for_subscriptions(own_valkey, 2)

        own_valkey.stop()
        own_valkey.start()
        worker = StockWorker(own_valkey)
        worker.succeed(before.id, result_for(LABELS))  # maybe before the waiter is back, so nobody hears it
        wait_for_subscriptions(own_valkey, 1)
        worker.succeed(after.id, result_for(LABELS))

        assert [future.result(timeout=20).state for future in waiting] == ["succeeded", "succeeded"]
        worker.close()


def test_who_waits_for_a_job_that_redis_forgot_is_told(tmp_path: Path) -> None:
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


def test_a_redis_that_stays_away_ends_the_wait(own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
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
