"""``nameshot worker`` restarts workers that die, but not those that cannot work, and ends with all its processes."""

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
#: Starts the launcher with that worker, as a terminal would: in a session of its own, and with no signal ignored (a
#: test that runs in the background inherits ignored signals).
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
    """Return once the launcher or one of its workers has logged the text ``times`` times."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while launcher.log.count(text) < times:
        assert time.monotonic() < deadline_s, launcher.log
        time.sleep(0.02)


def workers_of(launcher: Worker) -> list[int]:
    """Return the process ids of the launcher's children."""
    pid = launcher.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def hold_a_job(client: Client, origin: Origin) -> Callable[[], object]:
    """Submit a job that runs until `Origin.hold` is set; return a function that waits for its answer."""
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


def test_a_job_whose_message_kills_a_worker_before_any_job_runs_is_answered_by_the_next_worker(
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
def test_an_unusable_setting_is_reported_once_and_the_worker_is_not_restarted(
    launch: Launch, setting: str, value: str
) -> None:
    """The worker finds the first of these mistakes, the launcher the others."""
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


def test_a_worker_that_starts_while_redis_is_down_waits_for_it(
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
    """The test signals the whole process group, as a terminal does on Ctrl-C."""
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


def test_a_second_sigterm_ends_all_processes_at_once_and_requeues_the_job(
    launch: Launch, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT="600")
    launcher.wait_until_ready()
    hold_a_job(client, origin)
    launcher.process.send_signal(signal.SIGTERM)
    wait_for("Warm shutdown", launcher)
    assert not launcher.is_ready

    while launcher.process.poll() is None:  # the launcher ignores a second signal that follows too soon
        launcher.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)

    assert launcher.process.returncode == 0
    assert_returned(own_valkey)


def test_sigquit_ends_all_processes_at_once_and_requeues_the_job(
    launch: Launch, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    launcher = launch(NAMESHOT_DRAIN_TIMEOUT="600")
    launcher.wait_until_ready()
    hold_a_job(client, origin)

    assert launcher.stop(signal.SIGQUIT) == 0
    assert_returned(own_valkey)
    assert not launcher.is_ready


def test_on_sigusr1_the_worker_prints_each_thread_s_stack_and_goes_on(
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


def test_sigusr1_ends_no_worker_that_is_starting(launch: Launch) -> None:
    launcher = launch()
    eventually(lambda: bool(workers_of(launcher)))
    while not launcher.is_ready:
        launcher.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)  # so that signals meet all steps of the start

    assert "starting it again" not in launcher.log
    assert launcher.stop() == 0


@pytest.mark.parametrize(("drain_timeout", "times"), [("600", 2), ("0", 1)], ids=["two signals", "drain timeout over"])
def test_a_frozen_worker_is_killed_once_it_should_have_ended(drain_timeout: str, times: int, launch: Launch) -> None:
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


def test_a_launcher_that_waits_before_a_restart_ends_at_once_at_a_signal(launch: Launch) -> None:
    launcher = launch()
    launcher.wait_until_ready()
    (worker,) = workers_of(launcher)
    os.kill(worker, signal.SIGKILL)
    wait_for("starting it again", launcher)

    assert launcher.stop() == 0


def test_each_gpu_has_a_worker_of_its_own(launch: Launch, client: Client, origin: Origin) -> None:
    """The null model needs no GPU."""
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


def test_if_one_worker_refuses_to_start_the_launcher_ends_the_others_too(launch: Launch) -> None:
    launcher = launch(gpus="0,1", prefix=WITHOUT_READY_FILE, NAMESHOT_FETCH_PORTS="80,http")

    assert launcher.process.wait(TIMEOUT_S) == os.EX_CONFIG
    assert "cannot work: stopping all workers." in launcher.log
