"""``nameshot acl`` writes the files for a Redis with roles."""

import stat
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.access.conftest import START
from tests.cli.command import Home
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "owl"]
TIMEOUT_S = 60


def settings_in(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_a_valkey_a_worker_and_a_producer_work_with_the_files_of_nameshot_acl(tmp_path: Path, origin: Origin) -> None:
    access = tmp_path / "access"
    server = ValkeyServer(tmp_path, options=("--aclfile", str(access / "users.acl")))
    done = Home.make(tmp_path).run("acl", access, "--redis", f"redis://127.0.0.1:{server.port}")
    durable = "--appendonly yes --maxmemory-policy noeviction"
    assert done.out == f"valkey-server --aclfile {access / 'users.acl'} {durable}\n"
    passwords = [settings_in(file)["NAMESHOT_BROKER_URL"].split(":")[2].split("@")[0] for file in access.glob("*.env")]
    assert len(set(passwords)) == 4
    assert not any(password in (access / "users.acl").read_text() for password in passwords)
    assert {stat.S_IMODE(file.stat().st_mode) for file in access.glob("*.env")} == {0o600}

    folder = tmp_path / "worker"
    folder.mkdir()
    fetching = {"NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}", "NAMESHOT_METRICS_PORT": "0"}
    producer = settings_in(access / "producer.env")
    with server, Worker(folder, {**settings_in(access / "worker.env"), **fetching}, START) as worker:
        worker.wait_until_ready()
        with Client(producer["NAMESHOT_BROKER_URL"], producer["NAMESHOT_RESULT_BACKEND"]) as client:
            assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking


def test_existing_passwords_are_not_overwritten(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    home.run("acl", "access")
    before = (tmp_path / "access" / "worker.env").read_text()

    again = home.run("acl", "access")

    assert again.status == 1
    assert "users.acl already exists" in again.sentence
    assert (tmp_path / "access" / "worker.env").read_text() == before


def test_nameshot_acl_reads_the_queue_prefix_from_the_environment(tmp_path: Path) -> None:
    Home.make(tmp_path, NAMESHOT_QUEUE_PREFIX="birds").run("acl", "access")

    assert "user birds-worker on" in (tmp_path / "access" / "users.acl").read_text()
    assert settings_in(tmp_path / "access" / "worker.env")["NAMESHOT_QUEUE_PREFIX"] == "birds"


@pytest.mark.parametrize(
    "address",
    [
        *("redis", "http://x", "redis://user:pw@host", "redis://host/0", "redis://h:port"),
        *("redis://\udcff", "redis://a b", "redis://a..b", "redis://a;b"),
    ],
)
def test_an_invalid_redis_address_is_refused(tmp_path: Path, address: str) -> None:
    done = Home.make(tmp_path).run("acl", "access", "--redis", address)

    assert done.status == 2
    assert "--redis must be a scheme, a host and an optional port" in done.sentence
    assert not (tmp_path / "access").exists()
