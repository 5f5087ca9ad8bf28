"""A refused password may be almost the right one, or the right one elsewhere, so no program prints it."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from producer import AsyncClient, BrokerUnavailable, Client
from tests.acceptance.worker_process import Worker
from tests.cli.command import Home
from tests.delivery.conftest import COMMAND
from tests.eventually import eventually
from tests.secrets.leaks import show_nothing_of, whole
from tests.valkey_server import ValkeyServer

WRONG = "WRONG-CANARY-WORD"
URL, LABELS = "http://images.example/owl.png?X-Amz-Signature=CANARY", ["fox", "bear"]


@pytest.fixture
def refused(valkey: ValkeyServer) -> tuple[str, str]:
    """Return the URLs of the broker and the result backend, with an existing user and a wrong password."""
    broker_url, result_backend = (
        url.replace("://", f"://nameshot-worker:{WRONG}@") for url in (valkey.url(0), valkey.url(1))
    )
    return broker_url, result_backend


def refused_worker(folder: Path, **settings: str) -> Worker:
    always = {"NAMESHOT_LOG_LEVEL": "DEBUG", "NAMESHOT_METRICS_PORT": "0", "NAMESHOT_DRAIN_TIMEOUT": "0"}
    return Worker(folder, {**always, **settings}, (*COMMAND, "-n", "refused@%h", "-l", "DEBUG"))


def test_a_worker_does_not_log_a_password_that_the_broker_refuses(refused: tuple[str, str], tmp_path: Path) -> None:
    with refused_worker(tmp_path, NAMESHOT_BROKER_URL=refused[0], NAMESHOT_RESULT_BACKEND=refused[1]) as worker:
        eventually(lambda: "invalid username-password pair" in worker.log, lambda: worker.log)

    show_nothing_of(worker.log, WRONG)


def test_a_worker_does_not_log_a_password_that_the_result_backend_refuses(
    refused: tuple[str, str], valkey: ValkeyServer, tmp_path: Path
) -> None:
    settings = {**valkey.settings("worker"), "NAMESHOT_RESULT_BACKEND": refused[1]}
    with refused_worker(tmp_path, **settings) as worker, Client(valkey.broker_url, valkey.result_backend) as client:
        client.submit(URL, LABELS)
        eventually(lambda: "the result backend does not take answers" in worker.log, lambda: worker.log)

    show_nothing_of(worker.log, WRONG, "CANARY")


def _blocking(refused: tuple[str, str]) -> str:
    with Client(*refused) as client:
        return _refused(lambda: client.submit(URL, LABELS)) + _refused(client.job("an-id").result) + repr(client)


def _asynchronous(refused: tuple[str, str]) -> str:
    async def ask() -> str:
        async with AsyncClient(*refused) as client:
            seen = ""
            for question in (client.submit(URL, LABELS), client.job("an-id").result()):
                with pytest.raises(BrokerUnavailable) as caught:
                    await question
                seen += whole(caught.value)
            return seen + repr(client)

    return asyncio.run(ask())


def _refused(question: Callable[[], object]) -> str:
    with pytest.raises(BrokerUnavailable, match="refused the user name or password") as caught:
        question()
    return whole(caught.value)


@pytest.mark.parametrize("kind", [_blocking, _asynchronous])
def test_a_client_shows_a_refused_password_in_no_error_and_no_log(
    kind: Callable[[tuple[str, str]], str], refused: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    show_nothing_of(kind(refused) + caplog.text, WRONG, "CANARY")


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("doctor", "--json"),
        ("classify", URL, "-l", "fox"),
        ("bulk", "urls.txt", "-l", "fox", "-o", "out.jsonl"),
        ("dead-letters", "list"),
    ],
)
def test_a_command_does_not_print_a_refused_password(
    arguments: tuple[str, ...], refused: tuple[str, str], home: Home
) -> None:
    (home.folder / "urls.txt").write_text(URL)
    here = home.with_settings(
        NAMESHOT_BROKER_URL=refused[0], NAMESHOT_RESULT_BACKEND=refused[1], NAMESHOT_LOG_LEVEL="DEBUG"
    )

    done = here.run(*arguments)

    assert done.status == 1
    assert "refused the user name or password" in done.out + done.err
    show_nothing_of(done.out + done.err, WRONG, "CANARY")
