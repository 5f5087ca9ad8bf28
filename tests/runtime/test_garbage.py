"""Full garbage collections skip what a process loaded at its start, and still collect what jobs leave behind."""

import subprocess
import sys
from pathlib import Path

from tests.acceptance.worker_process import Worker
from tests.valkey_server import ValkeyServer

PROGRAM = """
import gc, weakref
from worker.runtime.garbage import freeze_garbage

class Node:
    pass

def ring():
    first, second = Node(), Node()
    first.other, second.other = second, first
    return weakref.ref(first)

before = ring()
kept = [[] for _ in range(100_000)]
freeze_garbage()
assert before() is None, "what was garbage already was collected"
assert len(gc.get_objects()) < 10_000, len(gc.get_objects())
after = ring()
gc.collect()
assert after() is None, "a later ring was collected"
"""


LOADING = """
import gc
from worker.engine.device import load_engine
from worker.settings import WorkerSettings

collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))

class Loading(Exception):
    pass

def load_model(*_, **__):
    collections.clear()
    kept = [[] for _ in range(100_000)]
    assert not collections, "what is loaded was scanned"
    raise Loading

try:
    load_engine(WorkerSettings(), load_model=load_model, on_device_lost=lambda: None)
except Loading:
    kept = [[] for _ in range(100_000)]
assert collections, "nothing is collected any more"
"""


def test_garbage_collection_pauses_while_the_model_loads() -> None:
    subprocess.run([sys.executable, "-c", LOADING], check=True, timeout=60)


def test_only_objects_made_after_the_start_are_collected() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


def test_the_garbage_collector_of_a_ready_worker_skips_what_it_has_loaded(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    written = tmp_path / "settled"
    settings = {**own_valkey.settings("worker"), "NAMESHOT_METRICS_PORT": "0", "SETTLED_FILE": str(written)}
    command = (sys.executable, "-m", "celery", "-A", "tests.runtime.settled_app", "worker", "-n", "settled@%h")

    with Worker(tmp_path, settings, command, is_new=True) as worker:
        worker.wait_until_ready()
        # The worker counts as ready a moment before this app's signal handler runs, so read the file after the stop.
        assert worker.stop() == 0

    left_alone, looked_at = map(int, written.read_text().split())
    assert left_alone > 10 * looked_at
