"""What `nameshot up` keeps from one run to the next."""

import json
import socket
from pathlib import Path

import pytest

from producer.embedded.kept import Kept
from producer.embedded.valkey import RunningValkey
from producer.errors import EmbeddedError


def test_the_next_run_has_the_same_port_and_secrets(tmp_path: Path) -> None:
    kept = Kept.read(tmp_path)
    kept.write(tmp_path, 6_390)

    again = Kept.read(tmp_path)

    assert kept.redis_port is None
    assert again == Kept(6_390, kept.redis_password, kept.file_secret)
    assert (tmp_path / "kept.json").stat().st_mode & 0o777 == 0o600
    assert kept.redis_password not in repr(again)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"redis_port": 70_000, "redis_password": 32 * "a", "file_secret": 32 * "b"}),
        json.dumps({"redis_port": 6_390, "redis_password": "short", "file_secret": 32 * "b"}),
    ],
)
def test_a_damaged_file_is_ignored(text: str, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(text)

    assert Kept.read(tmp_path).redis_port is None


def test_a_kept_port_that_is_in_use_is_replaced_but_one_that_the_user_chose_is_not(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with RunningValkey(tmp_path, port=port, or_another=True, password="p" * 32) as server:
            assert server.port != port
            assert "p" * 32 in server.broker_url
        with pytest.raises(EmbeddedError, match=f"^port {port} on 127.0.0.1 is in use .* with --redis-port"):
            RunningValkey(tmp_path, port=port)
