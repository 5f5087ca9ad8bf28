"""``nameshot worker``: what dies is started again, what cannot work is not, and who stops it stops all of it."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from producer import Client
from producer.processes.queued_signals import SAME_REQUEST_S
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.eventually import eventually
from tests.processes.programs import wait_until_gone
from tests.valkey_server import ValkeyServer

Launch = Callable[..., Worker]
LABELS = ["fox", "bear"]
TIMEOUT_S = 60
#: A null worker with a name of its own.
WORKER = "import os; from {module} import app; app.worker_main(['worker', '-n', f'{{os.getpid()}}@%h'])"
#: The launcher itself, told to start that, with what a terminal gives a command: a session of its own, and no signal
#: ignored, as they are where the tests run in the background.
LAUNCHER = """
import os, signal, sys
from worker.runtime.launcher import launch
os.setsid()
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
sys.exit(launch(gpus=sys.argv[1] or None, command=(sys.executable, "-c", sys.argv[2])))
"""
WITHOUT_READY_FILE = ("/usr/bin/env", "--unset=NAMESHOT_READY_FILE")


@pytest.fixture
def launch(own_valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Iterator[Launch]:
    """Start the launcher with null workers on this test's own Valkey."""
    with ExitStack() as stack:

        def start(
            *, gpus: str = "", module: str = "tests.chaos.null_worker", prefix: tuple[str, ...] = (), **settings: str
        ) -> Worker:
            environment = {
                **own_valkey.settings("worker"),
                "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                "NAMESHOT_METRICS_PORT": "0",
                **settings,
            }
            command = (*prefix, sys.executable, "-c", LAUNCHER, gpus, WORKER.format(module=module))
            return stack.enter_context(Worker(tmp_path, environment, command))

        yield start


def wait_for(text: str, launcher: Worker, times: int = 1) -> None:
    """Return once it, or a worker of it, has said so."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while launcher.log.count(text) < times:
        assert time.monotonic() < deadline_s, launcher.log
        time.sleep(0.02)


def workers_of(launcher: Worker) -> list[int]:
    """The process ids of its children."""
    pid = launcher.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def hold_a_job(client: Client, origin: Origin) -> Callable[[], object]:
    """A job that runs until `Origin.hold` is set; returns what gets its answer."""
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    return lambda: job.result(timeout=TIMEOUT_S).ranking


def assert_returned(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as broker:
        assert broker.llen("nameshot.default") == 1
        assert broker.keys("nameshot:in-flight:*") == []


def test_a_worker_that_is_killed_is_started_again_and_takes_jobs(
    launch: Launch, client: Client, origin: Origin
) -> None:
    launcher = launch()
    launcher.wait_until_ready()
    (killed,) = workers_of(launcher)
    os.kill(killed, signal.SIGKILL)
    wait_for("ERROR   worker.runtime.launcher  the worker was killed by SIGKILL; starting it again in 1 s.", launcher)

    launcher.wait_until_ready()

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert workers_of(launcher) != [killed]
    assert launcher.stop() == 0


def test_a_message_that_kills_a_worker_before_a_job_of_it_runs_is_survived(
    launch: Launch, client: Client, origin: Origin, tmp_path: Path
) -> None:
    (tmp_path / "fragile").touch()
    launcher = launch(module="tests.delivery.fragile_worker", FRAGILE=str(tmp_path / "fragile"))

    answer = client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S)

    assert answer.ranking
    assert launcher.log.count("the worker was killed by SIGKILL") == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("NAMESHOT_FETCH_PORTS", "80,http"),
        ("NAMESHOT_MAX_QUEUE", "80,http"),
        ("NAMESHOT_READY_FILE", "/no/such/folder/ready"),
        ("NAMESHOT_READY_FILE", "/tmp"),
    ],
)
def test_a_setting_that_cannot_be_used_is_said_once_and_not_tried_again(
    launch: Launch, setting: str, value: str
) -> None:
    """The first is found by the worker, the others by the launcher already."""
    launcher = launch(**{setting: value})

    assert launcher.process.wait(TIMEOUT_S) == os.EX_CONFIG
    assert launcher.log.count(setting) == 1
    assert "starting it again" not in launcher.log
    assert "Traceback" not in launcher.log


def test_a_folder_of_the_ready_file_that_is_removed_is_created_again_and_ends_no_worker(
    launch: Launch, client: Client, origin: Origin, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    launcher = launch(NAMESHOT_READY_FILE=str(folder / "ready"))
    eventually((folder / "ready").exists)

    shutil.rmtree(folder)
    eventually((folder / "ready").exists)
    shutil.rmtree(folder)
    os.kill(workers_of(launcher)[0], signal.SIGKILL)

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    eventually((folder / "ready").exists)
    assert launcher.log.count(f"the folder {folder} was removed: created it again") == 2
    assert launcher.stop() == 0


def test_a_redis_that_is_away_when_the_worker_starts_is_waited_for(
    launch: Launch, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    own_valkey.stop()
    launcher = launch()
    wait_for("this worker takes no jobs until the broker works again", launcher)
    own_valkey.start()

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert "starting it again" not in launcher.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_signal_lets_the_running_job_finish(
    number: signal.Signals, launch: Launch, client: Client, origin: Origin
) -> None:
    """Sent to the whole group of processes, as a terminal sends Ctrl-C."""
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT="600")
    launcher.wait_until_ready()
    answer = hold_a_job(client, origin)
    os.killpg(launcher.process.pid, number)
    wait_for("Warm shutdown", launcher)
    origin.hold.set()

    assert answer()
    assert launcher.process.wait(TIMEOUT_S) == 0
    assert "starting it again" not in launcher.log
    assert "leaving" not in launcher.log


def test_a_second_sigterm_ends_all_at_once_and_returns_the_job(
    launch: Launch, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT="600")
    launcher.wait_until_ready()
    hold_a_job(client, origin)
    launcher.process.send_signal(signal.SIGTERM)
    wait_for("Warm shutdown", launcher)
    assert not launcher.is_ready

    while launcher.process.poll() is None:  # one that follows too soon is taken for the first
        launcher.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)

    assert launcher.process.returncode == 0
    assert_returned(own_valkey)


def test_sigquit_ends_all_at_once_and_returns_the_job(
    launch: Launch, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT="600")
    launcher.wait_until_ready()
    hold_a_job(client, origin)

    assert launcher.stop(signal.SIGQUIT) == 0
    assert_returned(own_valkey)
    assert not launcher.is_ready


def test_on_sigusr1_its_worker_prints_each_threads_stack_and_all_go_on(
    launch: Launch, client: Client, origin: Origin
) -> None:
    launcher = launch()
    launcher.wait_until_ready()
    workers = workers_of(launcher)
    launcher.process.send_signal(signal.SIGUSR1)
    wait_for("MainThread", launcher)

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert workers_of(launcher) == workers
    assert launcher.stop() == 0


def test_sigusr1_ends_no_worker_that_still_starts(launch: Launch) -> None:
    launcher = launch()
    eventually(lambda: bool(workers_of(launcher)))
    while not launcher.is_ready:
        launcher.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)  # the steps of a start that a signal could meet

    assert "starting it again" not in launcher.log
    assert launcher.stop() == 0


@pytest.mark.parametrize(("drain_timeout", "times"), [("600", 2), ("0", 1)], ids=["told twice", "out of time"])
def test_a_worker_that_is_frozen_is_killed_once_it_should_have_ended(
    drain_timeout: str, times: int, launch: Launch
) -> None:
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT=drain_timeout)
    launcher.wait_until_ready()
    (worker,) = workers_of(launcher)
    os.kill(worker, signal.SIGSTOP)
    for _ in range(times):
        launcher.process.send_signal(signal.SIGTERM)
        time.sleep(2 * SAME_REQUEST_S)

    assert launcher.process.wait(TIMEOUT_S) == 1
    assert "the worker does not end: killing it." in launcher.log
    assert not launcher.is_ready
    wait_until_gone(worker)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_worker_whose_launcher_is_killed_finishes_its_job_and_ends(
    launch: Launch, client: Client, origin: Origin, is_stopped: bool
) -> None:
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT="600")
    launcher.wait_until_ready()
    (worker,) = workers_of(launcher)
    answer = hold_a_job(client, origin)
    if is_stopped:
        os.kill(worker, signal.SIGSTOP)
    launcher.process.kill()
    wait_for("Warm shutdown", launcher)
    origin.hold.set()

    assert answer()
    wait_until_gone(worker)


def test_a_launcher_that_waits_to_start_a_worker_again_ends_at_once(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_until_ready()
    (worker,) = workers_of(launcher)
    os.kill(worker, signal.SIGKILL)
    wait_for("starting it again", launcher)

    assert launcher.stop() == 0


def test_each_gpu_has_a_worker_of_its_own(launch: Launch, client: Client, origin: Origin) -> None:
    """The null model asks for no GPU."""
    launcher = launch(gpus="0,1", prefix=WITHOUT_READY_FILE)
    wait_for("ready: null takes jobs", launcher, times=2)
    devices = {
        next(entry for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if "NAMESHOT_DEVICE" in entry): pid
        for pid in workers_of(launcher)
    }
    assert devices.keys() == {"NAMESHOT_DEVICE=cuda:0", "NAMESHOT_DEVICE=cuda:1"}

    os.kill(devices["NAMESHOT_DEVICE=cuda:1"], signal.SIGKILL)
    wait_for("the worker on cuda:1 was killed by SIGKILL; starting it again in 1 s.", launcher)
    wait_for("ready: null takes jobs", launcher, times=3)

    assert devices["NAMESHOT_DEVICE=cuda:0"] in workers_of(launcher)
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert launcher.stop() == 0


def test_what_one_worker_refuses_ends_the_others_too(launch: Launch) -> None:
    launcher = launch(gpus="0,1", prefix=WITHOUT_READY_FILE, NAMESHOT_FETCH_PORTS="80,http")

    assert launcher.process.wait(TIMEOUT_S) == os.EX_CONFIG
    assert "cannot work: stopping all workers." in launcher.log
