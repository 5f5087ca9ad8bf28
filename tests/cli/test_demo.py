"""`nameshot demo` runs a real system, gives right answers, and leaves nothing behind."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from producer.demo.gallery import pictures
from tests.cli.command import Home, Running
from tests.eventually import eventually

#: Printed while the model loads: Valkey runs, and the worker has just been started.
LOADING = "starting Valkey: "
#: Printed with the first answer.
ANSWERING = "owl.png"

#: Enough for a worker's start on a busy machine.
pytestmark = pytest.mark.timeout(300)

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def assert_nothing_left(home: Home) -> None:
    home.assert_nothing_runs()
    assert list((home.folder / "tmp").iterdir()) == []


def test_each_picture_is_named_right_whatever_the_users_own_settings_are(home: Home) -> None:
    settings = {
        "NAMESHOT_BROKER_URL": "redis://127.0.0.1:1/0",
        "NAMESHOT_QUEUE_PREFIX": "somebody",
        "NAMESHOT_FETCH_HOSTS": "example.com",
        "NAMESHOT_MODEL": "no such/model",
    }

    done = home.with_settings(**settings).run("demo")

    assert done.status == 0, done.err
    blocks = done.out.split("\n\n")
    for picture, block in zip(pictures(), blocks, strict=False):
        title, first, *_, times = block.splitlines()
        assert title == f"{picture.file}: {', '.join(picture.candidate_labels)}?"
        assert first.split()[0] == picture.expect
        assert times.startswith("  ms: queued ")
        assert " · fetch " in times
        assert " · forward " in times
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["starting Valkey", "loading the model"]
    assert_nothing_left(home)


def test_the_demo_begins_with_the_two_examples_of_the_guide() -> None:
    owl, car, *_ = pictures()

    assert (owl.candidate_labels, owl.expect) == (["fox", "bear", "seagull", "owl"], "owl")
    assert (car.candidate_labels, car.expect) == (["tree", "car", "bike", "cat"], "car")


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((LOADING, number) for number in SIGNALS),
        pytest.param(ANSWERING, signal.SIGINT, marks=pytest.mark.thorough),
    ],
)
def test_a_signal_ends_the_demo_at_once_and_nothing_is_left(moment: str, number: signal.Signals, home: Home) -> None:
    with home.start("demo") as running:
        running.wait_for(moment)

        running.send(number)

        # The demo may have printed its last answer before the signal arrived.
        assert running.ended() == 128 + number or (moment == ANSWERING and running.process.returncode == 0)
        assert "Traceback" not in running.err
    assert_nothing_left(home)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_any_moment_leaves_no_process(number: signal.Signals, home: Home) -> None:
    """The moments range from Python's own start, when the exit status varies, to the loading of the model."""
    for _ in range(3):
        with home.start("demo") as running:
            time.sleep(random.uniform(0, 3))

            running.send(number)

            assert running.ended() in (128 + number, -number, 1)
        home.assert_nothing_runs()


@pytest.mark.parametrize("moment", [LOADING, pytest.param(ANSWERING, marks=pytest.mark.thorough)])
def test_a_killed_demo_takes_its_processes_with_it(moment: str, home: Home) -> None:
    with home.start("demo") as running:
        running.wait_for(moment)

        running.send(signal.SIGKILL)

        running.ended()
    home.assert_nothing_runs()


def kill_child(running: Running, command: str) -> None:
    os.kill(running.child(command), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("celery", "nameshot: the worker was killed by SIGKILL before it was ready."),
        ("valkey-server", None),
    ],
)
def test_the_death_of_the_worker_or_of_valkey_is_reported_in_one_sentence(
    command: str, sentence: str | None, home: Home
) -> None:
    with home.start("demo") as running:
        running.wait_for(LOADING)
        eventually(lambda: any(command in line for line in home.processes().values()), lambda: running.err)

        kill_child(running, command)

        assert running.ended() == 1
        *stages, last = running.err.splitlines()
        assert all(stage.startswith(("starting Valkey: ", "loading the model: ")) for stage in stages)
        assert last.startswith("nameshot: ")
        assert sentence in (None, last)
    assert_nothing_left(home)


def test_a_worker_killed_while_jobs_wait_is_reported_in_one_sentence(home: Home, tmp_path: Path) -> None:
    """The test stops the worker first, so that answers are still missing when it dies."""
    with home.start("demo") as running:
        running.wait_for(LOADING)
        eventually(lambda: any("celery" in line for line in home.processes().values()), lambda: running.err)
        worker = running.child("celery")
        eventually(lambda: list((tmp_path / "tmp").glob("nameshot-demo-*/worker.ready")), lambda: running.err)
        os.kill(worker, signal.SIGSTOP)
        running.wait_for("loading the model: ")

        os.kill(worker, signal.SIGKILL)

        if running.ended() == 0:
            pytest.fail("the demo had all its answers before the worker was stopped")
        assert running.err.splitlines()[-1] == "nameshot: the worker was killed by SIGKILL."
    assert_nothing_left(home)
