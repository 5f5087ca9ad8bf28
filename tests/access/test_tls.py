"""With ``rediss://`` and a private authority, all programs use TLS and none trusts a server of another authority."""

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from celery import Celery

from producer import AsyncClient, BrokerUnavailable, Client
from producer.broker.access import RoleName
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.access.conftest import START
from tests.chaos.proxy import Line, Switchboard
from tests.cli.command import Home
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "owl"]
TIMEOUT_S = 60


@dataclass(frozen=True)
class TlsValkey:
    """A Valkey that requires a certificate of its clients, which in turn check the server's."""

    valkey: ValkeyServer
    line: Line
    folder: Path

    def url(self, database: int, role: RoleName, authority: str = "ca.pem") -> str:
        """Return a URL with the role's password, the client's certificate and the authority to trust."""
        query = f"ssl_cert_reqs=required&ssl_ca_certs={self.folder / authority}"
        query += f"&ssl_certfile={self.folder / 'client.pem'}&ssl_keyfile={self.folder / 'client.key'}"
        url = self.valkey.url(database, role).replace("redis://", "rediss://")
        return f"{url.replace(str(self.valkey.port), str(self.line.port))}?{query}"

    def settings(self, role: RoleName, authority: str = "ca.pem") -> dict[str, str]:
        return {
            "NAMESHOT_BROKER_URL": self.url(0, role, authority),
            "NAMESHOT_RESULT_BACKEND": self.url(1, role, authority),
        }


@pytest.fixture
def tls_valkey(own_valkey: ValkeyServer, tmp_path: Path) -> Iterator[TlsValkey]:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    client = authority.issue_cert("worker.example")
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Switchboard() as switchboard:
        yield TlsValkey(own_valkey, switchboard.line(own_valkey.port, context), tmp_path)


@pytest.fixture
def worker(tls_valkey: TlsValkey, origin: Origin, tmp_path: Path) -> Iterator[Worker]:
    folder = tmp_path / "worker"
    folder.mkdir()
    settings = {"NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}", "NAMESHOT_METRICS_PORT": "0"}
    with Worker(folder, {**tls_valkey.settings("worker"), **settings}, START) as worker:
        worker.wait_until_ready()
        yield worker


def test_jobs_of_every_kind_of_client_are_answered_over_tls(
    tls_valkey: TlsValkey, worker: Worker, origin: Origin, tmp_path: Path
) -> None:
    broker_url, result_backend = tls_valkey.url(0, "producer"), tls_valkey.url(1, "producer")
    with Client(broker_url, result_backend) as client:
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        held = client.submit(origin.url("/held/owl.png"), LABELS)
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        held.cancel()
        assert origin.left.acquire(timeout=TIMEOUT_S), "the worker did not receive the cancellation"
    asyncio.run(ask_asynchronously(broker_url, result_backend, origin.url("/owl.png")))
    with Celery(broker=broker_url, backend=result_backend, set_as_current=False) as plain:
        arguments = {"image": origin.url("/owl.png"), "candidate_labels": LABELS}
        sent = plain.send_task("nameshot.classify", kwargs=arguments, queue="nameshot.default")
        assert sent.get(TIMEOUT_S)["ranking"]
    (tmp_path / "home").mkdir()
    doctor = Home.make(tmp_path / "home", **tls_valkey.settings("producer")).run("doctor")
    assert "1 running" in doctor.out
    assert worker.process.poll() is None


async def ask_asynchronously(broker_url: str, result_backend: str, image: str) -> None:
    async with AsyncClient(broker_url, result_backend) as client:
        assert (await client.classify(image, LABELS, timeout=TIMEOUT_S)).ranking


def test_a_client_refuses_a_server_of_another_authority(tls_valkey: TlsValkey) -> None:
    with (
        Client(tls_valkey.url(0, "producer", "stranger.pem"), tls_valkey.url(1, "producer", "stranger.pem")) as client,
        pytest.raises(BrokerUnavailable, match=r"(?i)certificate"),
    ):
        client.submit("http://example.com/owl.png", LABELS)


def test_a_worker_that_does_not_trust_its_broker_takes_no_job_and_says_why(
    tls_valkey: TlsValkey, tmp_path: Path
) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    settings = {**tls_valkey.settings("worker", "stranger.pem"), "NAMESHOT_METRICS_PORT": "0"}
    with Worker(folder, settings, START) as worker:
        worker.wait_for_log("certificate verify failed")
        assert "s3cret" not in worker.log
        worker.stop()
