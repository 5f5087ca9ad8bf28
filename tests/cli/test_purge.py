"""`purge` and `forget` with a real Valkey, without a worker."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator

import pytest
import redis

from producer import Client
from producer.cli.jobs import why_not_forgotten
from producer.contract.names import QUEUES, answer_key
from producer.operations.answers import State
from tests.cli.command import NAMESHOT, Home
from tests.valkey_server import ValkeyServer

URL = "http://example.com/owl.png"
LABELS = ["owl", "fox"]


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


@pytest.fixture
def with_valkey(home: Home, valkey: ValkeyServer) -> Home:
    """A user with the worker's role, which purging requires."""
    return home.with_settings(**valkey.settings("worker"))


def test_purge_deletes_waiting_jobs_and_frees_their_ids(with_valkey: Home, client: Client, broker: redis.Redis) -> None:
    jobs = client.submit_many({"url": URL, "labels": LABELS, "job_id": f"order-{number}"} for number in range(500))
    for queue in ("high", "bulk"):
        client.submit(URL, LABELS, queue=queue)
    broker.lmove("nameshot.default", "nameshot.default:rung", "RIGHT", "LEFT")
    broker.lpush("nameshot.default\x06\x165", "{}", "no JSON")

    done = with_valkey.run("purge", "default", "--yes")

    assert (done.status, done.err, done.out) == (0, "", "deleted 502 waiting jobs from default\n")
    assert client.queue_depths() == {"high": 1, "default": 0, "bulk": 1}
    assert broker.get("nameshot.default:taken") == b"500"
    assert len(broker.keys("nameshot:claim:*")) == 4  # the claims of the other queues' jobs
    assert jobs[7].status() == "unknown"
    assert client.submit(URL, ["another"], job_id="order-7").is_new
    assert client.job("order-7").position() == 0
    assert with_valkey.run("purge", "default", "--yes", "--json").json_lines == [{"queue": "default", "purged": 1}]


def test_after_a_purge_only_the_purged_jobs_are_unknown(with_valkey: Home, client: Client, broker: redis.Redis) -> None:
    purged, standing = client.submit(URL, LABELS), client.submit(URL, LABELS, queue="high")
    broker.hset("nameshot:in-hand", purged.id, "returned default 1")
    with_valkey.run("purge", "default", "--yes")
    later = client.submit(URL, LABELS)

    assert [job.status() for job in (purged, standing, later)] == ["unknown", "queued", "queued"]
    assert later.position() == 0
    assert not broker.hexists("nameshot:in-hand", purged.id)


def test_purge_frees_neither_the_id_of_an_answered_job_nor_one_whose_newer_message_is_elsewhere(
    with_valkey: Home, client: Client, broker: redis.Redis
) -> None:
    client.submit(URL, LABELS, job_id="cancelled").cancel()
    client.submit(URL, LABELS, job_id="moved", queue="high")
    broker.rename("nameshot.high", "nameshot.default:rung")
    broker.delete("nameshot:claim:moved", "nameshot:claim:moved:place")
    client.submit(URL, LABELS, job_id="moved", queue="bulk")

    assert with_valkey.run("purge", "default", "--yes", "--json").json_lines == [{"queue": "default", "purged": 2}]

    assert client.job("cancelled").status() == "cancelled"
    assert not client.submit(URL, LABELS, job_id="cancelled").is_new
    assert client.job("moved").status() == "queued"


def test_purge_deletes_large_messages_a_few_at_a_time(with_valkey: Home, broker: redis.Redis) -> None:
    for _ in range(40):
        broker.lpush("nameshot.bulk", json.dumps({"headers": {"id": "x"}, "body": "x" * 1_000_000}))

    assert with_valkey.run("purge", "bulk", "--yes", "--json").json_lines == [{"queue": "bulk", "purged": 40}]


def test_each_queue_can_be_purged_and_nothing_else(with_valkey: Home, client: Client) -> None:
    for queue in QUEUES:
        client.submit(URL, LABELS, queue=queue)
        assert with_valkey.run("purge", queue, "--yes", "--json").json_lines == [{"queue": queue, "purged": 1}]

    assert with_valkey.run("purge", "slow", "--yes").status == 2


@pytest.mark.parametrize("text", ["", "n\n", "y\n"])
def test_without_a_terminal_and_without_yes_purge_deletes_nothing(text: str, with_valkey: Home, client: Client) -> None:
    client.submit(URL, LABELS)

    done = with_valkey.run("purge", "default", input_text=text)

    assert (done.status, done.out) == (2, "")
    assert done.sentence.endswith("nothing was deleted; to delete, give --yes.")
    assert client.queue_depths()["default"] == 1


@pytest.mark.parametrize(("answer", "status", "left"), [("y", 0, 0), ("n", 1, 1), ("", 1, 1)])
def test_on_a_terminal_purge_asks_first(answer: str, status: int, left: int, with_valkey: Home, client: Client) -> None:
    client.submit(URL, LABELS)

    ended, shown = on_a_terminal(with_valkey, answer, "purge", "default")

    assert "Delete the waiting jobs in nameshot.default (1)?" in shown
    assert (ended, client.queue_depths()["default"]) == (status, left)


def test_if_the_input_ends_at_the_question_purge_deletes_nothing(with_valkey: Home, client: Client) -> None:
    client.submit(URL, LABELS)

    ended, shown = on_a_terminal(with_valkey, "\x04", "purge", "default")

    assert (ended, client.queue_depths()["default"]) == (130, 1)
    assert "Traceback" not in shown


def test_with_json_the_answer_no_on_a_terminal_is_an_error(with_valkey: Home) -> None:
    ended, shown = on_a_terminal(with_valkey, "n", "purge", "default", "--json")

    assert ended == 1
    assert '"purged": 0, "error": {"code": "refused", "message": "nothing was deleted."' in shown


def test_on_a_terminal_purge_does_not_ask_if_yes_is_given(with_valkey: Home, client: Client) -> None:
    client.submit(URL, LABELS)

    ended, shown = on_a_terminal(with_valkey, "", "purge", "default", "--yes")

    assert (ended, "?" in shown, client.queue_depths()["default"]) == (0, False, 0)


def on_a_terminal(user: Home, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command whose standard input is a terminal; return its exit status and its output."""
    person, terminal = pty.openpty()
    try:
        os.write(person, f"{answer}\n".encode())
        done = subprocess.run(
            [NAMESHOT, *arguments],
            env=user.environment,
            cwd=user.folder,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(person)
        os.close(terminal)
    return done.returncode, done.stdout


def test_a_producer_may_not_purge(home: Home, valkey: ValkeyServer, client: Client) -> None:
    client.submit(URL, LABELS)

    done = home.with_settings(**valkey.settings("producer")).run("purge", "default", "--yes")

    assert done.status == 1
    assert "does not permit this user" in done.sentence
    assert client.queue_depths()["default"] == 1


def test_forget_frees_the_id_of_an_answered_job(home: Home, valkey: ValkeyServer, client: Client) -> None:
    producer = home.with_settings(**valkey.settings("producer"))
    client.submit(URL, LABELS, job_id="an-id")
    waiting = producer.run("forget", "an-id")
    assert (waiting.status, waiting.out) == (1, "")
    assert waiting.sentence == "job an-id is queued; cancel it first, or wait for its answer."
    producer.run("cancel", "an-id")

    done = producer.run("forget", "an-id")

    assert (done.status, done.out, done.err) == (0, "forgotten\n", "")
    again = producer.run("forget", "an-id")
    assert (again.status, again.sentence) == (1, "job an-id is unknown, so its id is free.")
    (refused,) = producer.run("forget", "an-id", "--json").json_lines
    assert (refused["forgotten"], refused["error"]["message"]) == (False, "job an-id is unknown, so its id is free.")
    with valkey.connect(1) as results:
        assert not results.exists(answer_key("an-id"))
    assert producer.run("submit", URL, "-l", "another", "--id", "an-id").out == "an-id\n"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "expired"])
def test_if_the_id_of_an_answered_job_was_not_freed_forget_says_to_try_again(state: State) -> None:
    """While the command tried to forget it, the job was answered or another program changed its records."""
    assert why_not_forgotten("an-id", state) == f"job an-id changed meanwhile and is {state} now; try again."
