"""`nameshot wait`, and the exit statuses by which `wait` and `result` tell a script how a job ended."""

import signal

import pytest

from producer.cli import EXIT_NO_ANSWER_YET
from producer.contract.names import answer_key
from tests.cli.command import Home
from tests.cli.test_jobs import ANSWER, URL
from tests.valkey_server import ValkeyServer

FAILURE = (
    b'{"status": "FAILURE", "result": {"exc_type": "JobFailed", "exc_module": "producer.errors", "exc_message":'
    b' ["empty", "the body is empty.", false]}, "traceback": null, "children": [], "task_id": "failed"}'
)


@pytest.fixture
def jobs(with_valkey: Home, valkey: ValkeyServer) -> Home:
    """A user with a job that succeeded, one that failed and one that waits."""
    with valkey.connect(1) as connection:
        connection.set(answer_key("answered"), ANSWER)
        connection.set(answer_key("failed"), FAILURE)
    with_valkey.run("submit", URL, "-l", "fox", "--id", "queued")
    return with_valkey


@pytest.mark.parametrize("command", ["result", "wait"])
def test_the_exit_status_says_how_a_job_ended(command: str, jobs: Home) -> None:
    limit = ("--wait", "0")

    assert jobs.run(command, "answered", *limit).status == 0
    failed = jobs.run(command, "failed", *limit)
    assert (failed.status, failed.out, failed.sentence) == (1, "", "empty: the body is empty.")
    waiting = jobs.run(command, "queued", *limit)
    assert (waiting.status, waiting.out) == (EXIT_NO_ANSWER_YET, "")
    assert waiting.sentence.startswith("job queued is queued and has no answer yet")


def test_wait_takes_several_jobs_and_prints_the_outcome_of_each(jobs: Home) -> None:
    done = jobs.run("wait", "answered", "failed", "nobody", "queued", "--wait", "0.2")

    assert done.status == EXIT_NO_ANSWER_YET
    assert done.out.startswith("answered\n  owl")
    failed, unknown, queued = done.err.splitlines()
    assert failed == "nameshot: failed: empty: the body is empty."
    assert unknown.startswith("nameshot: nobody: there is no job nobody")
    assert queued == "nameshot: job queued is queued and has no answer yet; wait for it with `nameshot wait queued`."
    assert jobs.run("wait", "answered", "failed").status == 1


def test_with_json_wait_prints_a_line_for_every_job(jobs: Home) -> None:
    done = jobs.run("wait", "answered", "failed", "nobody", "queued", "--wait", "0", "--json")

    assert (done.status, done.err) == (EXIT_NO_ANSWER_YET, "")
    answered, failed, unknown, queued = done.json_lines
    assert answered["result"]["ranking"][0]["label"] == "owl"
    assert failed == {"id": "failed", "error": {"code": "empty", "message": "the body is empty.", "retryable": False}}
    assert (unknown["id"], unknown["error"]["code"]) == ("nobody", "JobNotFound")
    assert (queued["id"], queued["error"]["code"], queued["error"]["retryable"]) == ("queued", "ResultTimeout", True)


def test_wait_ends_when_the_answer_comes(with_valkey: Home, valkey: ValkeyServer) -> None:
    with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id")
    with with_valkey.start("wait", "an-id") as running, valkey.connect(1) as connection:
        while not connection.pubsub_channels(answer_key("an-id")):
            assert running.process.poll() is None, running.err
        connection.set(answer_key("an-id"), ANSWER)
        connection.publish(answer_key("an-id"), ANSWER)

        assert running.ended() == 0
        assert running.out.startswith("an-id\n  owl")


def test_wait_says_if_no_worker_runs_and_ctrl_c_does_not_cancel_the_job(with_valkey: Home) -> None:
    with_valkey.run("submit", URL, "-l", "fox", "--id", "an-id")
    with with_valkey.start("wait", "an-id") as running:
        running.wait_for("nameshot: no worker takes jobs from the queue, so this command waits")

        running.send(signal.SIGINT)

        assert running.ended() == 130
    assert with_valkey.run("status", "an-id").out == "queued\n"
