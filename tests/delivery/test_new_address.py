"""If Redis moves to another machine with its data, workers and clients follow its name to the new address."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from producer import Client, JobCancelled
from tests.acceptance.origin import Origin
from tests.chaos.hosts_file import looking_into
from tests.delivery.conftest import REAL_LENGTHS, StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
NAME = "queue.example"
NEW_ADDRESS = "127.0.0.2"


@pytest.fixture
def hosts(own_valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which this process and the workers look up the name."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{own_valkey.host} {NAME}\n")
    monkeypatch.setattr(socket, "getaddrinfo", looking_into(hosts))
    return hosts


@pytest.fixture
def urls(own_valkey: ValkeyServer) -> list[str]:
    return [own_valkey.url(database, "worker").replace(own_valkey.host, NAME) for database in (0, 1)]


@pytest.fixture
def client(hosts: Path, urls: list[str]) -> Iterator[Client]:  # noqa: ARG001 - the client resolves names with it
    with Client(*urls) as client:
        yield client


@pytest.fixture
def successor(own_valkey: ValkeyServer) -> Iterator[ValkeyServer]:
    """The server at the new address, not started yet; it uses the other server's append-only file."""
    server = ValkeyServer(own_valkey.folder, host=NEW_ADDRESS, port=own_valkey.port)
    yield server
    server.stop()


@pytest.mark.parametrize("goes", [ValkeyServer.stop, pytest.param(ValkeyServer.freeze, marks=pytest.mark.thorough)])
def test_workers_and_clients_follow_a_redis_whose_name_resolves_to_another_address(
    goes: Callable[[ValkeyServer], None],
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    own_valkey: ValkeyServer,
    successor: ValkeyServer,
    hosts: Path,
    urls: list[str],
) -> None:
    broker_url, result_backend = urls
    # The worker's event loop waits 8 s for the frozen server, while it already renews its lease at the new address.
    start_worker(
        "follower",
        NAMESHOT_BROKER_URL=broker_url,
        NAMESHOT_RESULT_BACKEND=result_backend,
        NULL_HOSTS=str(hosts),
        **REAL_LENGTHS,
    )
    spanning = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    with ThreadPoolExecutor(1) as thread, own_valkey.connect() as broker:
        waiting = thread.submit(spanning.result, timeout=TIMEOUT_S)
        eventually(lambda: broker.pubsub_channels(f"*{spanning.id}"))
        goes(own_valkey)
        hosts.write_text(f"{NEW_ADDRESS} {NAME}\n")
        successor.start()
        origin.hold.set()
        assert waiting.result().ranking
    assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking

    origin.hold_back()
    unwanted = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    with successor.connect() as broker:
        eventually(lambda: broker.pubsub_numsub("nameshot:cancelled")[0][1])
        unwanted.cancel()
        assert origin.left.acquire(timeout=TIMEOUT_S)
        with pytest.raises(JobCancelled):
            unwanted.result(timeout=TIMEOUT_S)
        (worker,) = broker.smembers("nameshot:workers")
        assert broker.exists(b"nameshot:lease:" + worker)
        while sum(each["cmd"] == "blmove" for each in broker.client_list()) < 3:  # a doorbell on each queue
            pass
        eventually(lambda: not (broker.hlen(b"nameshot:in-flight:" + worker)))
