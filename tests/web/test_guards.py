"""Other hosts, other sites, and pages of other origins."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.valkey_server import ValkeyServer
from tests.web.raw import exchange
from tests.web.serving import JOB, Server, command_for, environment, serving

ORIGIN = "https://app.example"
ALLOW = "authorization, content-type, idempotency-key, last-event-id, prefer, if-none-match, x-request-id"
EXPOSE = (
    "location, retry-after, etag, link, preference-applied, idempotent-replayed, ratelimit, ratelimit-policy, "
    "x-request-id"
)


def get(server: Server, path: str, *hosts: str) -> int:
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts)
    return exchange(server.port, f"{head}Connection: close\r\n\r\n".encode()).status


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8000", "127.0.0.1:1"])
def test_a_server_on_loopback_serves_its_own_names(server: Server, host: str) -> None:
    assert get(server, "/v1/info", host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.1", "localhost.", "2130706433", "localhost:x", "a b", "::1", ""],
)
def test_no_other_host_is_served(server: Server, host: str) -> None:
    assert get(server, "/v1/info", host) == 421


def test_a_request_names_exactly_one_host(server: Server) -> None:
    assert get(server, "/v1/info") == 400
    assert get(server, "/v1/info", "localhost", "localhost") == 421


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_supervisors_may_ask_by_an_address(server: Server, path: str) -> None:
    assert get(server, path, "10.0.0.7:8000") == 200


def test_an_operator_names_the_hosts_that_are_served(valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_HOSTS="api.example, b.example:8443") as server:
        found = [
            get(server, "/v1/info", host) for host in ("API.example:99", "b.example:8443", "localhost", "c.example")
        ]

    assert found == [200, 200, 200, 421]


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing(server: Server, valkey: ValkeyServer, headers: dict[str, str]) -> None:
    job_id = server.submit()

    refusals = [
        server.post("/v1/jobs", JOB, headers=headers),
        server.send("POST", f"/v1/jobs/{job_id}/cancel", None, headers),
        server.delete(f"/v1/jobs/{job_id}", headers=headers),
    ]

    assert {(refused.status_code, refused.json()["code"]) for refused in refusals} == {(403, "cross_origin")}
    assert server.get(f"/v1/jobs/{job_id}", headers=headers).json()["status"] == "queued"
    with valkey.connect() as broker:
        assert broker.llen("nameshot.default") == 1


def test_its_own_pages_and_programs_may_change_things(server: Server) -> None:
    own = f"http://127.0.0.1:{server.port}"
    for headers in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": own}):
        server.submit(headers=headers)


def preflight(server: Server, origin: str) -> dict[str, str]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
        "Sec-Fetch-Site": "cross-site",
    }
    answer = server.send("OPTIONS", "/v1/jobs", None, headers)
    return {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("access-")}


def test_pages_of_allowed_origins_may_call_the_api(valkey: ValkeyServer, tmp_path: Path) -> None:
    with serving(valkey, tmp_path / "log", NAMESHOT_WEB_CORS_ORIGINS=f"{ORIGIN},http://b.example") as server:
        assert preflight(server, ORIGIN) == {
            "access-control-allow-origin": ORIGIN,
            "access-control-allow-methods": "GET, POST, DELETE",
            "access-control-allow-headers": ALLOW,
            "access-control-max-age": "600",
        }
        assert preflight(server, "https://evil.example") == {}
        made = server.post("/v1/jobs", JOB, headers={"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"})
        assert made.status_code == 202
        assert made.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert made.headers["Access-Control-Expose-Headers"] == EXPOSE
        assert made.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in made.headers
        refused = server.post("/v1/jobs", JOB, headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "Access-Control-Allow-Origin" not in refused.headers


def test_without_the_setting_no_response_is_for_other_origins(server: Server) -> None:
    assert preflight(server, ORIGIN) == {}
    assert "Access-Control-Allow-Origin" not in server.get("/v1/info", headers={"Origin": ORIGIN}).headers


def refused(valkey: ValkeyServer, *arguments: str, **settings: str) -> str:
    """The sentence with which a server ends that may not start."""
    done = subprocess.run(
        command_for("--port", "0", *arguments),
        env=environment(valkey, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == os.EX_CONFIG
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_server_without_keys_does_not_listen_on_a_network(valkey: ValkeyServer, tmp_path: Path) -> None:
    assert "NAMESHOT_WEB_KEYS_FILE" in refused(valkey, "--host", "0.0.0.0")
    with serving(valkey, tmp_path / "log", "--host", "0.0.0.0", NAMESHOT_WEB_OPEN="1") as server:
        assert get(server, "/v1/info", "anything.example") == 200
    assert "warning: anyone who reaches 0.0.0.0 can submit jobs" in (tmp_path / "log").read_text()


def test_wrong_settings_end_the_command_with_one_sentence(valkey: ValkeyServer, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert "NAMESHOT_WEB_KEYS_FILE cannot be read" in refused(valkey, NAMESHOT_WEB_KEYS_FILE=str(keys))
    keys.write_text('{"kid": "a", "sha256": "short"}\n')
    assert "line 1 (sha256)" in refused(valkey, NAMESHOT_WEB_KEYS_FILE=str(keys))
    assert "NAMESHOT_WEB_RATE" in refused(valkey, NAMESHOT_WEB_RATE="many")
    assert "NAMESHOT_BROKER_URL" in refused(valkey, NAMESHOT_BROKER_URL="nonsense")


def test_a_port_that_is_taken_is_one_sentence(server: Server, valkey: ValkeyServer) -> None:
    done = subprocess.run(
        command_for("--port", str(server.port)),
        env=environment(valkey),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"nameshot: the address 127.0.0.1, port {server.port}, cannot be used")
    assert len(done.stderr.splitlines()) == 1
