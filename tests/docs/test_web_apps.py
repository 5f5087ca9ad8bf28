"""The recipes for web frameworks run in the real frameworks: uploads, answers, and errors as HTTP statuses."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from producer import Client, JobFailed
from tests.docs.examples import Examples
from tests.docs.tables import DOCS
from tests.valkey_server import ValkeyServer

PAGE = DOCS / "web-apps.md"
#: Enough for a busy machine; otherwise a job's answer takes milliseconds here.
ANSWER_TIMEOUT_S = 30

#: The status, the body and the headers of a response.
Response = tuple[int, Any, Mapping[str, str]]
#: Submits the URL of an upload; without a URL, requests the upload's label.
Call = Callable[..., Response]


@contextmanager
def fastapi() -> Iterator[Call]:
    """Run FastAPI's recipe, including its lifespan."""
    from fastapi.testclient import TestClient

    with TestClient(import_module("fastapi_app").app) as browser:

        def call(upload_id: str, url: str | None = None) -> Response:
            path = f"/uploads/{upload_id}"
            response = browser.get(path) if url is None else browser.post(path, json={"url": url})
            return response.status_code, response.json(), response.headers

        yield call


@contextmanager
def django() -> Iterator[Call]:
    """Run Django's recipe as the only application of a project."""
    import django
    from django.conf import settings
    from django.test import Client as Browser
    from django.urls import clear_url_caches, include, path

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["testserver"])
        django.setup()
    recipe = import_module("django_app")
    clear_url_caches()
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("uploads/", include("django_app"))]})
    browser = Browser()

    def call(upload_id: str, url: str | None = None) -> Response:
        at = f"/uploads/{upload_id}"
        response = browser.get(at) if url is None else browser.post(at, {"url": url})
        return response.status_code, response.json(), response.headers

    with recipe.client:
        yield call


@contextmanager
def flask() -> Iterator[Call]:
    """Run the application that the recipe's factory makes."""
    app = import_module("flask_app").create_app()
    browser = app.test_client()

    def call(upload_id: str, url: str | None = None) -> Response:
        path = f"/uploads/{upload_id}"
        response = browser.get(path) if url is None else browser.post(path, data={"url": url})
        return response.status_code, response.json, response.headers

    with app.extensions["nameshot"]:
        yield call


Recipe = Callable[[], AbstractContextManager[Call]]


@pytest.fixture(params=[fastapi, django, flask], ids=lambda recipe: str(recipe.__name__))
def recipe(
    request: pytest.FixtureRequest,
    replaced: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Recipe]:
    """Write the page's files to a folder from which Python imports them; entering the recipe makes its client."""
    # The FastAPI recipe waits for an answer; tests without an answer need not wait as long.
    examples = Examples(PAGE, replaced={**replaced, "timeout=10": "timeout=1"}, folder=tmp_path)
    examples.run()
    monkeypatch.syspath_prepend(tmp_path)
    yield request.param
    for name in examples.files:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_an_upload_is_queued_once_and_its_best_label_is_returned(recipe: Recipe, pictures: str) -> None:
    owl, upload_id = f"{pictures}/pictures/owl.png", f"owl-of-{recipe.__name__}"

    with recipe() as call, Client() as client:
        assert call(upload_id, owl)[:2] == (202, {"id": upload_id})
        assert client.submit(owl, ["fox", "bear", "seagull", "owl"], job_id=upload_id, expires_in=600).is_new is False
        client.job(upload_id).result(ANSWER_TIMEOUT_S)
        status, body, _ = call(upload_id)

    assert (status, body["label"]) == (200, "owl")
    assert body["score"] > 0.9


def test_each_error_of_a_job_has_its_http_status(recipe: Recipe, pictures: str) -> None:
    name = recipe.__name__

    with recipe() as call, Client() as client:
        missing, malformed = call(f"unknown-to-{name}"), call(f"malformed-for-{name}", "no URL")
        call(f"twice-for-{name}", f"{pictures}/pictures/owl.png")
        conflicting = call(f"twice-for-{name}", f"{pictures}/pictures/fox.png")
        call(f"failed-for-{name}", f"{pictures}/pictures/expired.png")
        client.job(f"failed-for-{name}").answer(ANSWER_TIMEOUT_S)
        failed = call(f"failed-for-{name}")

    assert (missing[0], missing[1]["error"]) == (404, "JobNotFound")
    assert (malformed[0], malformed[1]["error"]) == (422, "InvalidJob")
    assert (conflicting[0], conflicting[1]["error"]) == (409, "JobConflict")
    assert (failed[0], failed[1]["error"]) == (422, "http_status")


def test_responses_say_when_callers_should_try_again(
    recipe: Recipe, valkey_of_this_run: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = recipe.__name__
    for variable, value in valkey_of_this_run.settings("producer", f"no-worker-for-{name}").items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NAMESHOT_MAX_QUEUE", "1")

    with recipe() as call, Client() as client:
        call(f"first-of-{name}", "https://images.example/owl.jpg")
        waiting = call(f"first-of-{name}")
        full = call(f"second-of-{name}", "https://images.example/owl.jpg")
        client.cancel(f"first-of-{name}")
        cancelled = call(f"first-of-{name}")

    assert (waiting[0], waiting[2]["Retry-After"]) == (202, "1")
    assert waiting[1] == {"error": "ResultTimeout"}
    assert (full[0], full[1]["error"]) == (503, "QueueFull")
    assert int(full[2]["Retry-After"]) > 0
    assert (cancelled[0], cancelled[1]["error"]) == (410, "JobCancelled")


def test_a_job_that_failed_is_sent_again_by_the_next_request(recipe: Recipe, pictures: str) -> None:
    upload_id = f"again-for-{recipe.__name__}"

    with recipe() as call, Client() as client:
        call(upload_id, f"{pictures}/pictures/expired.png")
        client.job(upload_id).answer(ANSWER_TIMEOUT_S)
        assert call(upload_id)[0] == 422

        assert call(upload_id, f"{pictures}/pictures/owl.png")[:2] == (202, {"id": upload_id})
        client.job(upload_id).result(ANSWER_TIMEOUT_S)
        assert call(upload_id)[1]["label"] == "owl"


def test_while_redis_is_down_responses_say_so_without_its_address(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESHOT_BROKER_URL", "redis://127.0.0.1:1/0")

    with recipe() as call:
        assert call("upload", "https://images.example/owl.jpg")[:2] == (503, {"error": "BrokerUnavailable"})


def test_the_table_of_statuses_matches_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = Examples(PAGE, replaced={}, folder=tmp_path)
    examples.run()
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module("http_errors")
    del sys.modules["http_errors"]

    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\d{3})", PAGE.read_text(), re.MULTILINE)

    shown = {name: int(status) for names, status in rows for name in re.findall(r"\w+", names)}
    assert shown.pop("JobFailed") == module.http_answer(JobFailed("undecodable", "…"))[1] == 422
    assert module.http_answer(JobFailed("dns_failed", "…"))[1] == 503
    assert shown == {error.__name__: status for error, status in module.STATUSES.items()}
