"""If the server is an old Redis, a proxy or no Redis at all, the error names that cause."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import trustme

from producer import AsyncClient, BrokerUnavailable, Client
from producer.broker.servers import CLOCK_TOLERANCE_S, clock_fault, what_is_wrong
from producer.broker.urls import endpoint
from tests.chaos.proxy import Switchboard
from tests.valkey_server import ValkeyServer

Ask = Callable[[str], str]


def blocking(url: str) -> str:
    with Client(url, url) as client, pytest.raises(BrokerUnavailable) as caught:
        client.submit("https://images.example/owl.jpg", ["fox"])
    return str(caught.value)


def asynchronous(url: str) -> str:
    async def ask() -> str:
        async with AsyncClient(url, url) as client:
            with pytest.raises(BrokerUnavailable) as caught:
                await client.submit("https://images.example/owl.jpg", ["fox"])
            return str(caught.value)

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [blocking, asynchronous])


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@both
def test_a_client_without_tls_names_a_tls_port_as_the_cause(
    ask: Ask, valkey: ValkeyServer, tls: ssl.SSLContext
) -> None:
    with Switchboard() as switchboard:
        sentence = ask(f"redis://127.0.0.1:{switchboard.line(valkey.port, tls).port}/0")

    assert "expects TLS; write rediss:// in NAMESHOT_BROKER_URL." in sentence
    assert "queued" not in sentence


@both
def test_a_client_with_tls_names_a_port_without_tls_as_the_cause(ask: Ask, valkey: ValkeyServer) -> None:
    sentence = ask(f"rediss://127.0.0.1:{valkey.port}/0")

    assert "does not speak TLS; set NAMESHOT_BROKER_URL to its TLS port" in sentence


@both
def test_a_client_names_a_web_server_as_no_redis(ask: Ask) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        sentences = [ask(f"{scheme}://127.0.0.1:{server.server_port}/0") for scheme in ("redis", "rediss")]
        server.shutdown()

    assert "is not a Redis server" in sentences[0]
    assert "failed the TLS handshake" in sentences[1]


@pytest.fixture
def proxy() -> Iterator[Callable[[bytes], str]]:
    """Start a proxy that gives the same reply to every command; if the reply is empty, it closes the connection."""
    servers = []

    def start(answer: bytes) -> str:
        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                while answer and (asked := self.request.recv(65_536)):
                    self.request.sendall(answer * asked.count(b"*"))

        server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return f"redis://127.0.0.1:{server.server_address[1]}/0"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@both
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"-ERR upstream failure\r\n", "replied with an error (upstream failure); check that server, or the proxy"),
        (b"-no upstream host\r\n", "replied with an error (no upstream host)"),
        (b"-ERR unknown command 'eval'\r\n", "does not know a command (unknown command 'eval')"),
        (b"-ERR unsupported command 'eval'\r\n", "does not know a command (unsupported command 'eval')"),
        (b"-NOAUTH Authentication required.\r\n", "refused the user name or password"),
        (b"-MOVED 1234 10.0.0.1:6379\r\n", "is a Redis Cluster"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "is a Redis Cluster"),
        (b"", "closed the connection without a reply; check that NAMESHOT_BROKER_URL names Redis itself"),
    ],
)
def test_a_client_quotes_the_error_of_a_proxy(
    answer: bytes, said: str, ask: Ask, proxy: Callable[[bytes], str]
) -> None:
    sentence = ask(proxy(answer))

    assert said in sentence
    assert "queued" not in sentence


@pytest.mark.parametrize(
    ("info", "is_fit"),
    [
        ({"redis_version": "6.0.16"}, False),
        ({"redis_version": 5.0}, False),
        ({"redis_version": 6.2}, True),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2", "server_mode": "standalone"}, True),
        ({"redis_version": "8.0.0", "redis_mode": "cluster"}, False),
        ({"redis_version": "df-v1.30"}, True),
        ({}, True),
        (b"something else", True),
    ],
)
def test_only_servers_that_workers_can_use_are_accepted(info: object, is_fit: bool) -> None:
    assert (what_is_wrong(info, endpoint("redis://h/0", "NAMESHOT_BROKER_URL")) is None) == is_fit


@pytest.fixture
def old_redis(valkey: ValkeyServer) -> Iterator[str]:
    """The URL of a relay to Valkey that makes it look like an old Redis."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((valkey.host, valkey.port)) as far:
                while asked := self.request.recv(65_536):
                    far.sendall(asked)
                    answer = far.recv(65_536)
                    answer = answer.replace(b"redis_version:7.2", b"redis_version:6.0")
                    self.request.sendall(answer.replace(b"valkey", b"other_"))

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield valkey.url(0, "producer").replace(str(valkey.port), str(server.server_address[1]))
        server.shutdown()


@both
def test_an_old_redis_is_refused_at_the_first_call(ask: Ask, old_redis: str) -> None:
    assert "is version 6.0.4; workers need Redis 6.2 or later, or Valkey: upgrade it" in ask(old_redis)


def test_a_client_asks_each_server_for_its_version_once(own_valkey: ValkeyServer) -> None:
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        for _ in range(5):
            client.submit("https://images.example/owl.jpg", ["fox"])
            client.job("a").status()
    with own_valkey.connect() as operator:
        assert operator.info("commandstats")["cmdstat_info"]["calls"] == 2  # one each for broker and result backend


@pytest.mark.parametrize(
    ("ahead_s", "part"), [(3_600, "3,600 s ahead of that of Redis"), (-60, "60 s behind that of Redis"), (1, None)]
)
def test_a_clock_that_differs_from_the_server_s_is_reported(ahead_s: float, part: str | None) -> None:
    info = {"server_time_usec": int((time.time() - ahead_s) * 1e6)}

    fault = clock_fault(info, endpoint("redis://h/0", "NAMESHOT_BROKER_URL"))

    assert fault is None if part is None else part in str(fault)


@pytest.mark.parametrize("info", [{}, {"server_time_usec": "soon"}, "no mapping"])
def test_a_server_that_does_not_report_its_time_is_accepted(info: object) -> None:
    assert clock_fault(info, endpoint("redis://h/0", "NAMESHOT_BROKER_URL")) is None


def test_a_real_server_reports_its_time(valkey: ValkeyServer) -> None:
    with valkey.connect() as server:
        info = server.execute_command("INFO", "server")

    assert abs(info["server_time_usec"] / 1e6 - time.time()) < CLOCK_TOLERANCE_S
