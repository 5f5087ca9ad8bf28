"""Images a second through an engine: of this process, or of its own process with several fronts.

``python -m benchmarks.fronts SOCKET THREADS SECONDS`` is one such front.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from worker.concurrency.cancel_scope import CancelScope
from worker.engine.interface import Engine
from worker.engine_process.link import ask_info
from worker.engine_process.remote import RemoteEngine
from worker.model.interface import Prepared
from worker.model.pixels import prepared as prepared_pixels

#: A GPU reaches its clock, and its libraries have chosen their kernels, within this share of a measurement before it.
WARM_UP_SHARE: Final = 0.25
#: Prepared, 39 MB: as different as a worker's, which come from other processes' memory and not from a cache.
PICTURES: Final = 256
#: Loading 1.7 GB from a slow disk.
START_TIMEOUT_S: Final = 600.0


def engine_rate(engine: Engine, images: Sequence[Prepared], threads: int, seconds: float) -> float:
    """Images a second that so many threads get, each of which asks again as soon as it is answered."""
    scope = CancelScope(time.monotonic() + START_TIMEOUT_S + 10 * seconds)
    turns = itertools.cycle(images)

    def run() -> int:
        engine.embed_image(next(turns), "default", scope)
        return 1

    return rate_of(run, threads, seconds)


def rate_of(run: Callable[[], int], threads: int, seconds: float) -> float:
    """What ``run`` counts in a second, called over and over in each thread."""
    counts = [0] * threads
    started = time.perf_counter() + WARM_UP_SHARE * seconds
    ends = started + seconds

    def loop(number: int) -> None:
        while (now := time.perf_counter()) < ends:
            done = run()
            counts[number] += done if now >= started else 0

    running = [threading.Thread(target=loop, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    # What began within the time is counted, so the time is until its end.
    return sum(counts) / (time.perf_counter() - started)


def fronts_rates(
    folder: Path, device: str, max_batch: int, fronts: int, threads: int, seconds: float, rounds: int
) -> Iterator[float]:
    """Images a second through an engine process with so many fronts, all of them together, round by round."""
    with engine_process(folder, device, max_batch) as engine, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(engine.front(threads, seconds)) for _ in range(fronts)]
        for _ in range(rounds):
            yield together_per_s(clients)


@dataclass(frozen=True)
class EngineProcess:
    """One that serves on a path."""

    process: subprocess.Popen[bytes]
    path: Path
    environment: Mapping[str, str]

    @contextlib.contextmanager
    def front(self, threads: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """One of its fronts, connected; `together_per_s` has it measure."""
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fronts", str(self.path), str(threads), str(seconds)],
            env={**self.environment, "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            said(client)
            yield client


@contextlib.contextmanager
def engine_process(
    folder: Path, device: str, max_batch: int | str, program: str = "worker.engine_process"
) -> Iterator[EngineProcess]:
    """One that is ready.

    Args:
        max_batch: as ``NAMESHOT_MAX_BATCH``.
        program: the module that runs it.
    """
    environment = {
        **os.environ,
        "NAMESHOT_MODEL": str(folder),
        "NAMESHOT_DEVICE": device,
        "NAMESHOT_MAX_BATCH": str(max_batch),
        "NAMESHOT_LOG_LEVEL": "WARNING",
    }
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        path = Path(place) / "engine"
        engine = subprocess.Popen([sys.executable, "-m", program, str(path)], env=environment)
        stack.callback(engine.wait)
        stack.callback(engine.terminate)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not path.exists():
            if engine.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the engine process did not start (status {engine.poll()})")
            time.sleep(0.1)
        yield EngineProcess(engine, path, environment)


def together_per_s(clients: Sequence[subprocess.Popen[str]]) -> float:
    """Images a second of all these fronts at once."""
    for client in clients:
        tell(client)
    return sum(float(said(client)) for client in clients)


def different(shape: Sequence[int]) -> list[Prepared]:
    """So many images that no cache of the processor holds them all."""
    noise = np.random.default_rng(0).integers(0, 256, (PICTURES, *shape), np.uint8)
    return [prepared_pixels(pixels) for pixels in noise]


def front(path: Path, threads: int, seconds: float) -> None:
    """A front: a line on standard output when it is ready, and its rate for each line on standard input."""
    info = ask_info(path)
    if info.geometry is None:
        raise SystemExit("a model with an image processor of its own is not measured")
    images = different(info.geometry.apply(Image.new("RGB", (640, 480))).shape)
    engine = RemoteEngine(path, info, slots=threads, on_other_model=lambda: None)
    engine.embed_image(images[0], "default", CancelScope(time.monotonic() + START_TIMEOUT_S))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(engine_rate(engine, images, threads, seconds), flush=True)
    engine.close()


def said(client: subprocess.Popen[str]) -> str:
    """A front's next line."""
    if client.stdout is None or not (line := client.stdout.readline()):
        raise RuntimeError("a front has ended")
    return line


def tell(client: subprocess.Popen[str]) -> None:
    """Have a front measure."""
    if client.stdin is None:
        raise RuntimeError("a front has ended")
    client.stdin.write("go\n")
    client.stdin.flush()


if __name__ == "__main__":
    front(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
