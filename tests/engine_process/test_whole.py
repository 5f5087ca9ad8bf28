"""``nameshot worker --processes 2`` from start to stop, as its user and a real client see it."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from producer import Client
from producer.processes.queued_signals import SAME_REQUEST_S
from tests.acceptance.conftest import StartWorker, picture
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.cli.command import NAMESHOT
from tests.eventually import eventually
from tests.processes.programs import wait_until_gone
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear", "owl"]
TIMEOUT_S = 60
PREFIX = "fronts"
#: The ports of the two fronts: the setting names the first, and each front takes the first free one.
METRICS_PORTS = (19850, 19851)
#: Fewer images than two fronts have in flight at once, which are 24 in batches of 8 on one core.
IN_FLIGHT = 20
#: The command as a user types it.
COMMAND = (str(NAMESHOT), "worker", "--processes", "2")

Start = Callable[..., Worker]


@pytest.fixture
def start(start_worker: StartWorker, checkpoint: Callable[[str], Path]) -> Start:
    """Start a launcher with an engine and two fronts on its own queues, and wait until it is ready."""

    def start(prefix: str, **settings: str) -> Worker:
        worker = start_worker(checkpoint("clip"), COMMAND, prefix, NAMESHOT_DEVICE="cpu", **settings)
        worker.wait_until_ready()
        return worker

    return start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the shared launcher."""
    return tmp_path_factory.mktemp("launcher")


@pytest.fixture(scope="module")
def launcher(start_worker: StartWorker, checkpoint: Callable[[str], Path], folder: Path) -> Worker:
    """A launcher that several tests share; tests may kill its engines and fronts."""
    settings = {
        "NAMESHOT_DEVICE": "cpu",
        "NAMESHOT_METRICS_PORT": str(METRICS_PORTS[0]),
        "NAMESHOT_DRAIN_TIMEOUT": "600",
        "CUDA_VISIBLE_DEVICES": "0",
        "TMPDIR": str(folder),
    }
    launcher = start_worker(checkpoint("clip"), COMMAND, PREFIX, **settings)
    launcher.wait_until_ready()
    return launcher


@pytest.fixture
def client(valkey: ValkeyServer) -> Client:
    return client_of(valkey, PREFIX)


def client_of(valkey: ValkeyServer, prefix: str) -> Client:
    return Client(valkey.url(0, "producer", prefix), valkey.url(1, "producer", prefix), queue_prefix=prefix)


def children(launcher: Worker) -> dict[str, list[int]]:
    """Return the ids of the launcher's processes by kind: ``engine`` and ``fronts``."""
    pid = launcher.process.pid
    found: dict[str, list[int]] = {"engine": [], "fronts": []}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text()
        found["engine" if "worker.engine_process" in command else "fronts"].append(int(child))
    return found


def pictures(origin: Origin, count: int) -> list[str]:
    """Return the URLs of ``count`` different pictures."""
    for n in range(count):
        origin.pages[f"/p{n}.png"] = ("image/png", picture("PNG", (60 + n, 80), f"hsl({n * 7 % 360}, 80%, 50%)"))
    return [origin.url(f"/p{n}.png") for n in range(count)]


def test_jobs_in_flight_when_the_engine_is_killed_get_right_answers_from_the_next_engine(
    launcher: Worker, client: Client, origin: Origin, pipeline: Callable[[str], Any], tmp_path: Path
) -> None:
    urls = pictures(origin, 60)
    assert client.classify(origin.url("/owl.png"), LABELS).ranking
    (engine,), before = children(launcher)["engine"], len(launcher.log)
    os.kill(engine, signal.SIGSTOP)  # so that the engine answers nothing before it dies
    jobs = [client.submit(url, LABELS) for url in urls]
    eventually(lambda: sum(path.startswith("/p") for path in origin.paths) >= IN_FLIGHT)
    os.kill(engine, signal.SIGKILL)

    results = [job.result(timeout=TIMEOUT_S) for job in jobs]

    waited = re.findall(r"the engine has ended: (\d+) requests wait", launcher.log[before:])
    assert len(waited) == 2
    assert sum(map(int, waited)) > 0, launcher.log
    assert "the engine was killed by SIGKILL; starting it again in" in launcher.log[before:]
    for url, result in zip(urls, results, strict=True):
        file = tmp_path / "picture.png"
        file.write_bytes(origin.pages["/" + url.rpartition("/")[2]][1])
        expected = {row["label"]: row["score"] for row in pipeline("clip")(str(file), candidate_labels=LABELS)}
        assert {score.label: score.score for score in result.ranking} == pytest.approx(expected, abs=1e-5)
    assert len(children(launcher)["fronts"]) == 2


def test_no_front_loads_torch_or_sees_a_gpu_and_the_engine_does_both(
    launcher: Worker, client: Client, origin: Origin
) -> None:
    assert client.classify(origin.url("/owl.png"), LABELS).ranking
    processes = children(launcher)

    for front in processes["fronts"]:
        assert "libtorch" not in Path(f"/proc/{front}/maps").read_text()
        assert "CUDA_VISIBLE_DEVICES=" in Path(f"/proc/{front}/environ").read_text().split("\0")
    (engine,) = processes["engine"]
    assert "libtorch" in Path(f"/proc/{engine}/maps").read_text()
    assert "CUDA_VISIBLE_DEVICES=0" in Path(f"/proc/{engine}/environ").read_text().split("\0")


def test_a_front_that_is_killed_is_started_again_and_its_jobs_are_answered(
    launcher: Worker, client: Client, origin: Origin
) -> None:
    origin.hold_back()
    for n in range(8):
        origin.pages[f"/f{n}.png"] = ("image/png", picture("PNG", (70 + n, 70), "teal"))
    jobs = [client.submit(origin.url(f"/held/f{n}.png"), LABELS) for n in range(8)]
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    before = children(launcher)
    os.kill(before["fronts"][0], signal.SIGKILL)
    origin.hold.set()

    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    eventually(lambda: len(children(launcher)["fronts"]) == 2, lambda: launcher.log)
    assert children(launcher)["engine"] == before["engine"]


def test_while_its_engine_is_down_a_front_is_not_ready_and_takes_no_job(
    launcher: Worker, client: Client, origin: Origin
) -> None:
    eventually(lambda: readiness() == [(200, "ok\n")] * 2)
    (engine,) = children(launcher)["engine"]
    os.kill(engine, signal.SIGKILL)
    eventually(lambda: readiness() == [(503, "the engine is not connected\n")] * 2)
    eventually(lambda: not launcher.is_ready)
    assert readiness() == [(503, "the engine is not connected\n")] * 2
    job = client.submit(origin.url("/owl.png"), LABELS)
    meanwhile = [job.status()]
    while readiness() == [(503, "the engine is not connected\n")] * 2:
        meanwhile.append(job.status())
        time.sleep(0.05)

    # The last status may have been read after the engine was back.
    assert set(meanwhile[:-1]) == {"queued"}
    assert job.result(timeout=TIMEOUT_S).ranking
    eventually(lambda: readiness() == [(200, "ok\n")] * 2)
    eventually(lambda: launcher.is_ready)


@pytest.mark.parametrize("removed", ["the socket", "the folder"])
def test_what_a_cleaner_of_old_files_removes_is_there_again_for_the_next_engine_and_front(
    removed: str, launcher: Worker, client: Client, origin: Origin, folder: Path
) -> None:
    (sockets,) = folder.glob("nameshot-*")
    before, log_before = children(launcher), len(launcher.log)
    if removed == "the folder":
        shutil.rmtree(sockets)
        os.kill(before["engine"][0], signal.SIGKILL)
    else:
        (sockets / "engine-0").unlink()
    os.kill(before["fronts"][0], signal.SIGKILL)

    jobs = [client.submit(url, LABELS) for url in pictures(origin, 20)]
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    eventually(lambda: readiness() == [(200, "ok\n")] * 2, lambda: launcher.log[log_before:])
    eventually(lambda: launcher.is_ready)
    assert launcher.log[log_before:].count(f"{removed} {sockets}") == 1
    assert "NAMESHOT_READY_FILE" not in launcher.log[log_before:]
    assert sockets.stat().st_mode & 0o777 == 0o700
    if removed == "the socket":
        assert children(launcher)["engine"] == before["engine"]


@pytest.mark.thorough  # in `make test`, test_frozen.py does the same with shorter times
def test_a_frozen_engine_is_replaced_and_the_next_one_answers_its_jobs(
    launcher: Worker, client: Client, origin: Origin
) -> None:
    assert client.classify(origin.url("/owl.png"), LABELS).ranking
    before, log_before = children(launcher), len(launcher.log)
    os.kill(before["engine"][0], signal.SIGSTOP)
    for n in range(40):
        origin.pages[f"/z{n}.png"] = ("image/png", picture("PNG", (90 + n, 80), f"hsl({n * 7}, 80%, 50%)"))
    jobs = [client.submit(origin.url(f"/z{n}.png"), LABELS) for n in range(40)]

    eventually(lambda: readiness() == [(503, "the engine is silent\n")] * 2, lambda: launcher.log[log_before:])
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)

    assert "the engine has sent no heartbeat for" in launcher.log[log_before:]
    after = children(launcher)
    assert after["fronts"] == before["fronts"]
    assert after["engine"] != before["engine"]
    eventually(lambda: readiness() == [(200, "ok\n")] * 2)


# In `make test`, tests/delivery/test_launcher.py kills the launcher of workers that have no weights.
@pytest.mark.parametrize("ends", ["told", pytest.param("killed", marks=pytest.mark.thorough)])
def test_all_processes_end_once_the_running_job_is_answered_and_nothing_is_left(
    ends: str, start: Start, valkey: ValkeyServer, origin: Origin, tmp_path: Path
) -> None:
    """Either the launcher gets SIGTERM, or it is killed and the kernel signals its children."""
    prefix = f"whole-{ends}"
    launcher = start(prefix, NAMESHOT_DRAIN_TIMEOUT="600", TMPDIR=str(tmp_path))
    client = client_of(valkey, prefix)
    origin.pages[f"/{ends}.png"] = ("image/png", picture("PNG", (75, 75), "plum"))
    origin.hold_back()
    job = client.submit(origin.url(f"/held/{ends}.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    processes = [pid for pids in children(launcher).values() for pid in pids]

    launcher.process.send_signal(signal.SIGTERM if ends == "told" else signal.SIGKILL)
    eventually(lambda: launcher.log.count("Warm shutdown") == 2, lambda: launcher.log)
    # A killed launcher leaves its ready file, which the next launcher deletes.
    assert launcher.is_ready == (ends == "killed")
    origin.hold.set()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert launcher.process.wait(TIMEOUT_S) == (0 if ends == "told" else -signal.SIGKILL)
    wait_until_gone(*processes)
    assert "ERROR" not in launcher.log
    assert "WARNING" not in launcher.log
    assert list(tmp_path.glob("nameshot-*")) == []


def test_an_unusable_model_is_reported_in_one_sentence_and_ends_all_processes(start_worker: StartWorker) -> None:
    launcher = start_worker("/no/such/folder", COMMAND)

    assert launcher.process.wait(TIMEOUT_S) == os.EX_CONFIG
    assert launcher.log.count("there is no folder '/no/such/folder'") == 1
    assert "the engine cannot work: stopping all workers." in launcher.log
    assert "Traceback" not in launcher.log


def test_a_frozen_front_is_killed_when_all_processes_must_end_at_once(launcher: Worker, folder: Path) -> None:
    """This is the last test of the shared launcher, because it ends that launcher."""
    processes, before = children(launcher), len(launcher.log)
    os.kill(processes["fronts"][0], signal.SIGSTOP)
    launcher.process.send_signal(signal.SIGTERM)
    time.sleep(2 * SAME_REQUEST_S)

    assert launcher.stop() == 1
    wait_until_gone(*processes["engine"], *processes["fronts"])
    assert launcher.log[before:].count("does not end: killing it.") == 1
    assert not launcher.is_ready
    assert list(folder.glob("nameshot-*")) == []


def readiness() -> list[tuple[int, str]]:
    """Return the status and text of each front's /readyz; 0 and an empty text if no front listens."""
    answers = []
    for port in METRICS_PORTS:
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
        except requests.ConnectionError:
            answers.append((0, ""))
        else:
            answers.append((answer.status_code, answer.text))
    return answers


def test_there_is_no_ready_file_while_a_front_is_frozen(start: Start) -> None:
    launcher = start("frozen-front")
    front = children(launcher)["fronts"][0]
    os.kill(front, signal.SIGSTOP)
    eventually(lambda: not launcher.is_ready, lambda: launcher.log)
    os.kill(front, signal.SIGCONT)

    launcher.wait_until_ready()


def test_frozen_engines_and_fronts_end_too_when_their_launcher_is_killed(start: Start) -> None:
    launcher = start("killed-launcher")
    (engine,), fronts = children(launcher)["engine"], children(launcher)["fronts"]
    for stopped in (engine, fronts[0]):
        os.kill(stopped, signal.SIGSTOP)
    launcher.process.kill()

    wait_until_gone(engine, *fronts)
