"""With ``--json``, standard output contains only JSON, whatever goes wrong; sentences go to standard error."""

import json

import pytest

from producer.contract.names import answer_key
from tests.cli.command import Home
from tests.cli.test_jobs import ANSWER, URL
from tests.valkey_server import ValkeyServer

NOWHERE = {"NAMESHOT_BROKER_URL": "redis://127.0.0.1:1/0", "NAMESHOT_RESULT_BACKEND": "redis://127.0.0.1:1/1"}
#: Every command that has ``--json`` and needs Redis.
COMMANDS = [
    ("classify", URL, "-l", "fox"),
    ("submit", URL, "-l", "fox"),
    ("evaluate", "examples.csv"),
    ("status", "an-id"),
    ("result", "an-id"),
    ("wait", "an-id"),
    ("cancel", "an-id"),
    ("forget", "an-id"),
    ("purge", "bulk", "--yes"),
    ("dead-letters", "list"),
    ("dead-letters", "show", "1-1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_redis_each_command_prints_the_error_as_json(command: tuple[str, ...], home: Home) -> None:
    (home.folder / "examples.csv").write_text(f"{URL},fox\n{URL},owl\n")

    done = home.with_settings(**NOWHERE, FORCE_COLOR="1").run(*command, "--json")

    assert done.status == 1
    (line,) = done.json_lines
    assert line["error"]["code"] == "BrokerUnavailable"
    assert done.sentence.startswith(line["error"]["message"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("classify", URL), "there are no candidate labels"),
        (("classify", "nowhere.png", "-l", "fox"), "'nowhere.png' is neither"),
        (("classify", URL, "-l", "fox", "--top-k", "x"), "Invalid value for '--top-k'"),
        (("evaluate", "nowhere.csv"), "'nowhere.csv' cannot be read"),
        (("compare", "bundled", "bundled", "owl.png"), "there are no candidate labels"),
        (("verify", "--images", "nowhere"), "'nowhere' is not a folder"),
        (("result",), "Missing argument"),
        (("doctor", "--nonsense"), "No such option"),
    ],
)
def test_wrong_usage_is_reported_as_json_too(command: tuple[str, ...], message: str, home: Home) -> None:
    done = home.run(*command, "--json")

    assert done.status == 2
    (line,) = done.json_lines
    assert line["error"]["code"] == "UsageError"
    assert line["error"]["message"].startswith(message)
    assert done.sentence.startswith(message)


def test_a_refused_cancel_or_forget_has_an_error_beside_its_usual_member(
    with_valkey: Home, valkey: ValkeyServer
) -> None:
    with valkey.connect(1) as connection:
        connection.set(answer_key("an-id"), ANSWER)
    with_valkey.run("submit", URL, "-l", "fox", "--id", "queued")

    (cancelled,) = with_valkey.run("cancel", "an-id", "--json").json_lines
    (forgotten,) = with_valkey.run("forget", "queued", "--json").json_lines

    assert cancelled["cancelled"] is False
    assert cancelled["error"]["message"].startswith("job an-id already has an answer")
    assert forgotten["forgotten"] is False
    assert forgotten["error"]["message"].startswith("job queued is queued; cancel it first")


def test_a_job_that_is_purged_while_classify_waits_is_an_error_of_its_image(
    with_valkey: Home, valkey: ValkeyServer
) -> None:
    with with_valkey.start("classify", URL, f"{URL}?2", "-l", "fox", "--json") as running, valkey.connect() as broker:
        while broker.llen("nameshot.default") < 2:
            assert running.process.poll() is None, running.err
        with_valkey.with_settings(**valkey.settings("worker")).run("purge", "default", "--yes")

        assert running.ended() == 1

    lines = [json.loads(line) for line in running.out.splitlines()]
    assert [line["url"] for line in lines] == [URL, f"{URL}?2"]
    assert {line["error"]["code"] for line in lines} == {"JobNotFound"}
