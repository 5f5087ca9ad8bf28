"""Measures the images per second of an engine in this process, or of an engine process with several fronts.

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

#: Each measurement begins after this share of its time, in which a GPU reaches its clock rate and its libraries choose
#: kernels.
WARM_UP_SHARE: Final = 0.25
#: The number of different prepared images, 39 MB: like a worker's images, they come from memory, not from a cache.
PICTURES: Final = 256
#: A slow disk needs up to this long to load 1.7 GB.
START_TIMEOUT_S: Final = 600.0


def engine_rate(engine: Engine, images: Sequence[Prepared], threads: int, seconds: float) -> float:
    """Return the images per second of this many threads; each submits its next image once it has an answer."""
    scope = CancelScope(time.monotonic() + START_TIMEOUT_S + 10 * seconds)
    turns = itertools.cycle(images)

    def run() -> int:
        engine.embed_image(next(turns), "default", scope)
        return 1

    return rate_of(run, threads, seconds)


def rate_of(run: Callable[[], int], threads: int, seconds: float) -> float:
    """Call ``run`` repeatedly in each thread, and return the sum of its results per second."""
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
    # Calls that begin within the time are counted, so the measured time lasts until the end of the last one.
    return sum(counts) / (time.perf_counter() - started)


def fronts_rates(
    folder: Path, device: str, max_batch: int, fronts: int, threads: int, seconds: float, rounds: int
) -> Iterator[float]:
    """Yield each round's images per second of an engine process with this many fronts, all fronts together."""
    with engine_process(folder, device, max_batch) as engine, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(engine.front(threads, seconds)) for _ in range(fronts)]
        for _ in range(rounds):
            yield together_per_s(clients)


@dataclass(frozen=True)
class EngineProcess:
    """A running engine process that serves at a path."""

    process: subprocess.Popen[bytes]
    path: Path
    environment: Mapping[str, str]

    @contextlib.contextmanager
    def front(self, threads: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """Start a front and yield it once it is connected; `together_per_s` has it measure."""
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fronts", str(self.path), str(threads), str(seconds)],
            env={**self.environment, "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            next_line(client)
            yield client


@contextlib.contextmanager
def engine_process(
    folder: Path, device: str, max_batch: int | str, program: str = "worker.engine_process"
) -> Iterator[EngineProcess]:
    """Start an engine process and yield it once it is ready.

    Args:
        max_batch: as ``NAMESHOT_MAX_BATCH``.
        program: the module that the process runs.
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
    """Have all these fronts measure at once, and return their images per second together."""
    for client in clients:
        start_measuring(client)
    return sum(float(next_line(client)) for client in clients)


def different(shape: Sequence[int]) -> list[Prepared]:
    """Return prepared images of noise, more than any cache of the processor holds."""
    noise = np.random.default_rng(0).integers(0, 256, (PICTURES, *shape), np.uint8)
    return [prepared_pixels(pixels) for pixels in noise]


def front(path: Path, threads: int, seconds: float) -> None:
    """Run a front: print a line once it is ready, and its rate for each line on standard input."""
    info = ask_info(path)
    if info.geometry is None:
        raise SystemExit("this benchmark needs a model with a `Geometry`")
    images = different(info.geometry.apply(Image.new("RGB", (640, 480))).shape)
    engine = RemoteEngine(path, info, slots=threads, on_other_model=lambda: None)
    engine.embed_image(images[0], "default", CancelScope(time.monotonic() + START_TIMEOUT_S))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(engine_rate(engine, images, threads, seconds), flush=True)
    engine.close()


def next_line(client: subprocess.Popen[str]) -> str:
    """Return a front's next line."""
    if client.stdout is None or not (line := client.stdout.readline()):
        raise RuntimeError("a front has ended")
    return line


def start_measuring(client: subprocess.Popen[str]) -> None:
    """Have a front measure."""
    if client.stdin is None:
        raise RuntimeError("a front has ended")
    client.stdin.write("go\n")
    client.stdin.flush()


if __name__ == "__main__":
    front(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
