"""What the server logs, and how."""

import json
from pathlib import Path

from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.web.serving import serving


def test_each_process_logs_json_if_the_operator_wants_it(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(own_valkey, log, "--processes", "2", NAMESHOT_LOG_FORMAT="json") as server:
        own_valkey.stop()
        assert server.get("/v1/jobs/some", headers={"X-Request-Id": "mine"}).status_code == 503
        eventually(lambda: "mine" in log.read_text())
    (line,) = (json.loads(text) for text in log.read_text().splitlines() if "request mine" in text)

    assert line.keys() == {"time", "level", "logger", "message"}
    assert line["level"] == "WARNING"
    assert line["message"].startswith("request mine: Redis at ")


def test_an_idle_server_logs_nothing(valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(valkey, tmp_path / "log") as server:
        assert server.submit()

    assert (tmp_path / "log").read_text() == ""
