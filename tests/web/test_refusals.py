"""What the API refuses, with which code and pointer, and that nothing is queued then."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests

from producer.contract.image_url import MAX_URL_CHARACTERS
from producer.contract.job import ClassifyJob
from producer.errors import InvalidJob
from tests.contract import test_image_url, test_job
from tests.valkey_server import ValkeyServer
from tests.web.raw import exchange
from tests.web.serving import IMAGE, JOB, Server, environment, running

MIB = 1 << 20


def cases_of(module: ModuleType) -> Iterator[dict[str, Any]]:
    """The wrong values of the contract's own tests, by the members that hold them."""
    members = {
        "labels": "candidate_labels",
        "template": "hypothesis_template",
        **{name: name for name in ("image", "top_k", "timeout")},
    }
    for test in vars(module).values():
        for mark in getattr(test, "pytestmark", ()):
            names, values = mark.args[:2]
            first = names if isinstance(names, str) else names[0]
            if first in members:
                yield from ({members[first]: value if isinstance(names, str) else value[0]} for value in values)


def can_be_sent(value: Any) -> bool:
    """Whether strict JSON can hold a value: no halves of surrogate pairs, NaN or numbers of hundreds of digits."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError):
        return False
    return len(text) < 20 or not isinstance(value, int)


WRONG = [case for case in cases_of(test_job) if can_be_sent(next(iter(case.values())))]


def sentence_of(body: dict[str, Any]) -> str:
    """What the core says of it."""
    with pytest.raises(InvalidJob) as caught:
        ClassifyJob.from_message((), body)
    return str(caught.value)


def waiting(valkey: ValkeyServer) -> int:
    with valkey.connect() as broker:
        return int(broker.llen("nameshot.default"))


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_breaks_a_rule_of_the_contract_gets_its_sentence_and_a_pointer(
    server: Server, valkey: ValkeyServer, wrong: dict[str, Any]
) -> None:
    body = {**JOB, **wrong}
    (member,) = wrong

    refused = server.post("/v1/jobs", body)

    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/problem+json"
    problem = refused.json()
    assert problem["code"] == "invalid_job"
    (error,) = problem["errors"]
    assert error["detail"] == problem["detail"] == sentence_of(body)
    place = error["detail"].partition("[")[2].partition("]")[0] if error["detail"].startswith(f"{member}[") else ""
    assert error["pointer"] == f"/{member}" + (f"/{place}" if place else "")
    assert waiting(valkey) == 0


@pytest.mark.parametrize(
    "url", [*test_image_url.FAULTS, "owl.png", "data:image/png;base64,AAAA", f"{IMAGE}?{'x' * MAX_URL_CHARACTERS}"]
)
def test_a_url_that_no_worker_fetches_is_refused_without_being_repeated(server: Server, url: str) -> None:
    refused = server.post("/v1/jobs", {**JOB, "image": url})

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/image")
    assert "images.example" not in refused.text


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"image": IMAGE}, [""]),
        ({}, ["", ""]),
        ({**JOB, "labels": ["fox"]}, ["/labels"]),
        ({**JOB, "a/b~c": 1}, ["/a~1b~0c"]),
        ({**JOB, "top_k": 2**31}, ["/top_k"]),
        ({**JOB, "timeout": 3601}, ["/timeout"]),
        ({**JOB, "expires_in": 604_801}, ["/expires_in"]),
        ({**JOB, "expires_in": 0}, ["/expires_in"]),
        ({**JOB, "expires_in": True}, ["/expires_in"]),
        ({**JOB, "queue": "hgh"}, ["/queue"]),
        (
            {**JOB, "top_k": 0, "timeout": 0, "candidate_labels": ["owl", " owl"]},
            ["/candidate_labels/1", "/top_k", "/timeout"],
        ),
        ([], [""]),
        ("job", [""]),
    ],
    ids=str,
)
def test_each_wrong_member_has_a_pointer(server: Server, valkey: ValkeyServer, body: Any, pointers: list[str]) -> None:
    refused = server.post("/v1/jobs", body)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_job")
    assert [error["pointer"] for error in refused.json()["errors"]] == pointers
    assert waiting(valkey) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_only_json_is_read(server: Server, valkey: ValkeyServer, headers: dict[str, str]) -> None:
    refused = server.send("POST", "/v1/jobs", json.dumps(JOB).encode(), headers)

    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    assert waiting(valkey) == 0


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"top_k": NaN}',
        b'{"image": "\xff"}',
        b"[" * 100_000,
        b'{"image": "\\ud800"}',
        b"",
        b"{}{}",
        b'{"top_k": 123456789012345678901234567890}',
    ],
    ids=lambda text: str(text[:40]),
)
def test_json_is_strict(server: Server, text: bytes) -> None:
    refused = server.send("POST", "/v1/jobs", text, {"Content-Type": "application/json"})

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("content_type", ["application/json", 'application/json; charset="UTF-8"'])
def test_a_whole_number_may_be_written_with_a_point_and_true_is_none(server: Server, content_type: str) -> None:
    def status_of(top_k: str) -> int:
        text = f'{{"image": "{IMAGE}", "candidate_labels": ["owl"], "top_k": {top_k}}}'
        return server.send("POST", "/v1/jobs", text.encode(), {"Content-Type": content_type}).status_code

    assert [status_of(top_k) for top_k in ("3.0", "null", "3.5", "true")] == [202, 202, 422, 422]


def test_a_body_that_is_too_large_is_not_read(server: Server, valkey: ValkeyServer) -> None:
    json_type = {"Content-Type": "application/json"}
    before_bytes = server.rss_bytes

    def chunks() -> Any:
        for _ in range(60):
            yield b" " * MIB

    declared = server.send("POST", "/v1/jobs", b" " * (MIB + 1), json_type)
    assert (declared.status_code, declared.json()["code"]) == (413, "body_too_large")
    assert declared.headers["Connection"] == "close"
    with contextlib.suppress(requests.ConnectionError):  # it may close the connection before the client has sent all
        assert server.send("POST", "/v1/jobs", chunks(), json_type).status_code == 413
    assert server.send("POST", "/v1/jobs", b"[]" + b" " * (MIB - 2), json_type).status_code == 422
    assert server.rss_bytes - before_bytes < 10_000_000
    assert waiting(valkey) == 0


def test_a_chunked_body_that_is_too_large_is_answered_as_soon_as_it_is(server: Server) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"%x\r\n%b\r\n" % (MIB + 1, b" " * (MIB + 1))
    reply = exchange(server.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)

    assert reply.status == 413
    assert json.loads(reply.body)["code"] == "body_too_large"


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_where_no_body_is_expected_none_is_read(server: Server, method: str) -> None:
    path = "/v1/jobs/x/cancel" if method == "POST" else "/v1/jobs/x"

    assert server.send(method, path, b"{}", {}).status_code == 413
    assert server.send(method, path, iter([b"{}"]), {}).status_code == 413
    assert server.send(method, path, iter([]), {}).status_code == 404


@pytest.mark.parametrize(("method", "path", "status"), [("TRACE", "/v1/jobs", 405), ("POST", "/nowhere", 404)])
def test_a_body_that_no_route_reads_is_not_read(server: Server, method: str, path: str, status: int) -> None:
    refused = server.send(method, path, b"{}", {})

    assert (refused.status_code, refused.headers["Connection"]) == (status, "close")


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nowhere", 404, "not_found", None),
        ("GET", "/v1/jobs/", 404, "not_found", None),
        ("GET", "/docs", 404, "not_found", None),
        ("GET", "/errors/nothing", 404, "not_found", None),
        ("GET", "/v1/jobs/never-sent", 404, "job_not_found", None),
        ("GET", "/v1/jobs/a.b", 404, "job_not_found", None),
        ("PUT", "/v1/jobs", 405, "method_not_allowed", "GET, POST"),
        ("PATCH", "/v1/jobs/x", 405, "method_not_allowed", "DELETE, GET"),
        ("GET", "/v1/jobs/x/cancel", 405, "method_not_allowed", "POST"),
        ("HEAD", "/v1/queues", 405, "method_not_allowed", "GET"),
    ],
)
def test_what_is_not_there_is_a_problem(
    server: Server, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    refused = requests.request(method, server.url + path, timeout=60)

    assert (refused.status_code, refused.headers["Content-Type"]) == (status, "application/problem+json")
    assert refused.headers.get("Allow") == allow
    if method != "HEAD":
        problem = refused.json()
        assert (problem["code"], problem["status"], problem["type"]) == (code, status, f"/errors/{code}")
        assert problem["instance"] == refused.headers["X-Request-Id"]
        assert server.get(problem["type"]).json()["code"] == code


def test_every_response_has_the_headers_of_security_and_a_request_id(server: Server) -> None:
    for path in ("/v1/info", "/nowhere", "/healthz"):
        answer = server.get(path, headers={"X-Request-Id": "mine-1"})
        assert answer.headers["X-Request-Id"] == "mine-1"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "Server" not in answer.headers
    assert server.get("/v1/info", headers={"X-Request-Id": "not mine"}).headers["X-Request-Id"] != "not mine"


def test_an_error_of_the_server_is_logged_by_its_place_and_never_by_its_text(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    log, canary = tmp_path / "log", "signed-url-of-a-stranger"
    command = [sys.executable, "-m", "tests.web.planted_server", canary]
    with running(command, environment(valkey, NAMESHOT_LOG_LEVEL="DEBUG"), log) as server:
        failed = server.get("/v1/jobs/some")

        assert (failed.status_code, failed.json()["code"]) == (500, "internal")
        assert failed.headers["X-Content-Type-Options"] == "nosniff"
        assert canary not in failed.text
        assert server.get("/healthz").status_code == 200
    assert f"request {failed.json()['instance']} failed: RuntimeError at " in log.read_text()
    assert canary not in log.read_text()
