"""While no worker takes jobs from its queue, a command that waits says so once on standard error."""

import signal
from pathlib import Path

import pytest

from tests.cli.command import Home
from tests.valkey_server import ValkeyServer

SENTENCE = "nameshot: no worker takes jobs from the queue, so this command waits; start one with `nameshot worker`"
URL = "https://images.example/owl.jpg"
LABELS = ("-l", "fox", "-l", "owl")


def test_classify_says_that_no_worker_takes_jobs(with_valkey: Home) -> None:
    done = with_valkey.run("classify", URL, *LABELS, "--wait", "5")

    assert (done.status, done.out) == (1, "")
    notice, failure = done.err.splitlines()
    assert notice.startswith(SENTENCE)
    assert (
        "there is no answer yet, because no worker takes jobs from its queue, but the job continues; get its answer"
        in failure
    )


@pytest.mark.parametrize("command", ["classify", "wait", "bulk"])
def test_a_worker_of_other_queues_is_none(command: str, with_valkey: Home, valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        broker.sadd("nameshot:workers", "a-host/1/n00")
        broker.set("nameshot:lease:a-host/1/n00", "a-host/1 takes high")
    (with_valkey.folder / "images").write_text(f"{URL}\n")
    arguments = {
        "classify": (URL, *LABELS),
        "wait": (with_valkey.run("submit", URL, *LABELS).out.strip(),),
        "bulk": ("images", *LABELS),
    }

    with with_valkey.start(command, *arguments[command]) as running:
        running.wait_for(SENTENCE)
        running.send(signal.SIGINT)
        running.ended()


@pytest.mark.parametrize("command", ["bulk", "evaluate"])
def test_bulk_and_evaluate_say_once_that_no_worker_takes_jobs_and_go_on_waiting(
    command: str, with_valkey: Home
) -> None:
    source = Path("images.csv")
    (with_valkey.folder / source).write_text(f"image,label\n{URL},owl\n")

    with with_valkey.start(command, source, *LABELS) as running:
        running.wait_for(SENTENCE)
        running.send(signal.SIGINT)
        assert running.ended() == 130

    assert running.err.count(SENTENCE) == 1
    if command == "bulk":
        assert "cancelled 1 image before its answer was written" in running.err
