"""Client and worker accept each form of a Redis URL that Celery, redis-py or a provider uses, and read it alike."""

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from producer import BrokerUnavailable, Client, SettingsError
from producer.broker.access import RoleName, user_name
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.access.conftest import START
from tests.chaos.proxy import Switchboard
from tests.valkey_server import PASSWORDS, PREFIX, ValkeyServer

LABELS = ["fox", "owl"]
TIMEOUT_S = 60


@dataclass(frozen=True)
class Doors:
    """One Valkey that listens at a TCP port, a Unix socket and a TLS port."""

    port: int
    tls_port: int
    socket: Path
    authority: Path

    def url(self, form: str, role: RoleName, database: int) -> str:
        """Return a form of a URL with the role's name and password, the ports and the paths filled in."""
        return form.format(
            user=user_name(PREFIX, role),
            password=PASSWORDS[role],
            db=database,
            port=self.port,
            tls_port=self.tls_port,
            socket=self.socket,
            ca=self.authority,
        )


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    socket = folder / "v.sock"
    with ValkeyServer(folder, options=("--unixsocket", str(socket))) as valkey, Switchboard() as switchboard:
        with valkey.connect() as operator:  # the role permits the remote-control channel of database 0 only
            operator.execute_command("ACL", "SETUSER", user_name(PREFIX, "worker"), "allchannels")
        yield Doors(valkey.port, switchboard.line(valkey.port, context).port, socket, folder / "ca.pem")


@pytest.fixture
def start(origin: Origin, tmp_path: Path) -> Callable[..., Worker]:
    def worker(broker: str, results: str, **settings: str) -> Worker:
        return Worker(
            tmp_path,
            {
                "NAMESHOT_BROKER_URL": broker,
                "NAMESHOT_RESULT_BACKEND": results,
                "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                "NAMESHOT_METRICS_PORT": "0",
                **settings,
            },
            START,
        )

    return worker


WHO = "{user}:{password}@"
FORMS = {
    "trailing slash": ("redis://" + WHO + "127.0.0.1:{port}/{db}/", "redis://" + WHO + "127.0.0.1:{port}/{db}/"),
    "upper case": ("REDIS://" + WHO + "127.0.0.1:{port}/{db}", "Redis://" + WHO + "127.0.0.1:{port}/{db}"),
    "?db=, no path": ("redis://" + WHO + "127.0.0.1:{port}?db={db}", "redis://" + WHO + "127.0.0.1:{port}/?db={db}"),
    "who one is as arguments": (
        "redis://127.0.0.1:{port}/{db}?username={user}&password={password}",
        "redis://{user}@127.0.0.1:{port}/{db}?password={password}",
    ),
    "time-outs and the rest": (
        "redis://" + WHO + "127.0.0.1:{port}/{db}?socket_timeout=5&socket_connect_timeout=5&health_check_interval=25",
        "redis://" + WHO + "127.0.0.1:{port}/{db}?protocol=3&client_name=mine&socket_timeout=20",
    ),
    "a line feed from a file of secrets": ("redis://" + WHO + "127.0.0.1:{port}/{db}\n",) * 2,
    "unix": ("unix://{socket}?db={db}&username={user}&password={password}", "unix://" + WHO + "{socket}?db={db}"),
    "socket": (
        "redis+socket://" + WHO + "{socket}?virtual_host={db}&client_name=mine",
        "socket://" + WHO + "{socket}?virtual_host={db}",
    ),
    # The form that Heroku and Upstash give their users.
    "rediss without arguments": ("rediss://" + WHO + "127.0.0.1:{tls_port}/{db}",) * 2,
    "rediss with redis-py's arguments": (
        "rediss://" + WHO + "127.0.0.1:{tls_port}/{db}?ssl_cert_reqs=none",
        "rediss://" + WHO + "127.0.0.1:{tls_port}/{db}?ssl_ca_certs={ca}&ssl_check_hostname=true&ssl_min_version=771",
    ),
    "rediss with Celery's arguments": (
        "rediss://" + WHO + "127.0.0.1:{tls_port}/{db}?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca}",
        "RediSS://" + WHO + "127.0.0.1:{tls_port}/{db}/?ssl_cert_reqs=CERT_NONE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_client_and_worker_understand_every_form(
    form: str,
    doors: Doors,
    start: Callable[..., Worker],
    origin: Origin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, results = FORMS[form]
    # OpenSSL now treats the authority as one of the system's.
    monkeypatch.setenv("SSL_CERT_FILE", str(doors.authority))
    with (
        start(doors.url(broker, "worker", 2), doors.url(results, "worker", 3)) as worker,
        Client(doors.url(broker, "producer", 2), doors.url(results, "producer", 3)) as client,
    ):
        worker.wait_until_ready()
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
        assert PASSWORDS["worker"] not in worker.log
        assert worker.stop() == os.EX_OK


REFUSED = {
    "amqp://guest@h//": "must be one redis",
    "redis://h/0?colour=red": "has the unknown argument colour; known are db",
    "redis://h/0?decode_responses=true": "has the unknown argument decode_responses",
    "redis://h/0?ssl_ca_certs=/ca.pem": "has the argument ssl_ca_certs, which only a rediss:// URL accepts",
    "rediss://h/0?ssl_ca_certs=/no/such/ca.pem": "an invalid argument ssl_ca_certs",
    "rediss://h/0?ssl_cert_reqs=perhaps": "it must be required, optional or none",
    "unix:///run/r.sock?db=two": "an invalid argument db",
}


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        *((url, "NAMESHOT_BROKER_URL") for url in REFUSED),
        ("redis://h/0?colour=red", "NAMESHOT_RESULT_BACKEND"),
    ],
)
def test_client_and_worker_refuse_the_same_urls_with_the_same_sentence(
    url: str, variable: str, start: Callable[..., Worker]
) -> None:
    good = "redis://127.0.0.1:1/0"
    urls = (url, good) if variable == "NAMESHOT_BROKER_URL" else (good, url)
    with pytest.raises(SettingsError, match=REFUSED[url]) as refused:
        Client(*urls)
    with start(*urls) as worker:
        assert worker.process.wait(TIMEOUT_S) == os.EX_CONFIG
        assert str(refused.value) in worker.log
        assert "Traceback" not in worker.log
    assert str(refused.value).startswith(variable)


def test_without_arguments_a_certificate_of_an_unknown_authority_is_not_trusted(
    doors: Doors, start: Callable[..., Worker]
) -> None:
    form = FORMS["rediss without arguments"][0]
    with (
        Client(doors.url(form, "producer", 0), doors.url(form, "producer", 1)) as client,
        pytest.raises(BrokerUnavailable, match=r"name its authority with ssl_ca_certs in NAMESHOT_BROKER_URL"),
    ):
        client.queue_depths()
    with start(doors.url(form, "worker", 0), doors.url(form, "worker", 1)) as worker:
        worker.wait_for_log("certificate verify failed")
        assert not worker.is_ready


def test_a_worker_ignores_celery_s_own_variables_for_redis(
    doors: Doors, start: Callable[..., Worker], origin: Origin
) -> None:
    forms = FORMS["trailing slash"]
    elsewhere = {
        "CELERY_BROKER_URL": "redis+socket:///no/such.sock",
        "CELERY_RESULT_BACKEND": "db+sqlite:///results.db",
    }
    urls = [doors.url(forms[0], "worker", database) for database in (0, 1)]
    with (
        start(*urls, **elsewhere) as worker,
        Client(doors.url(forms[0], "producer", 0), doors.url(forms[1], "producer", 1)) as client,
    ):
        worker.wait_until_ready()
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
        assert "CELERY_BROKER_URL is not read" in worker.log
