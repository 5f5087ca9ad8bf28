"""What decoding in processes of its own would cost: ``python -m benchmarks.decoder_isolation``.

A prototype, outside the worker: a pool of small, long-lived children gets bytes over a pipe and returns the resized and
cropped uint8 pixels. Rounds in threads and in children alternate. Writes ``results/decoder_isolation.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import queue
import resource
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from PIL import Image

from worker.images import decode, prepare_pillow
from worker.model.geometry import Geometry

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "decoder_isolation.json"
#: CLIP's.
GEOMETRY: Final = Geometry(224, Image.Resampling.BICUBIC, (224, 224))
MAX_PIXELS: Final = 50_000_000
PARALLEL: Final = 2
SIZES: Final = {"640x427": ((640, 427), 300), "4000x3000": ((4000, 3000), 16)}
CHILD_MEMORY_BYTES: Final = 2_000_000_000
CHILD_CPU_S: Final = 30


def work(data: bytes) -> bytes:
    """The part that would move: uint8 pixels, 224 * 224 * 3 bytes."""
    return GEOMETRY.apply(decode(data, max_pixels=MAX_PIXELS).image).tobytes()


def child() -> None:
    """Answer images until the pipe ends, under limits that are renewed for each."""
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY_BYTES, CHILD_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    prepare_pillow(MAX_PIXELS)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := requests.read(4):
        data = requests.read(*struct.unpack("<I", header))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + CHILD_CPU_S, resource.RLIM_INFINITY))
        pixels = work(data)
        answers.write(struct.pack("<Id", len(pixels), time.process_time()) + pixels)
        answers.flush()


class Children:
    """The pool; one thread at a time has a child."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self._free: queue.Queue[int] = queue.Queue()
        self._pipes: list[tuple[IO[bytes], IO[bytes]]] = []
        self.pids = [process.pid for process in processes]
        self.cpu_s = [0.0] * len(processes)
        for number, process in enumerate(processes):
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a child has no pipes")
            self._pipes.append((process.stdin, process.stdout))
            self._free.put(number)

    def work(self, data: bytes) -> bytes:
        """As `work`, elsewhere."""
        number = self._free.get()
        requests, answers = self._pipes[number]
        requests.write(struct.pack("<I", len(data)))
        requests.write(data)
        requests.flush()
        size, self.cpu_s[number] = struct.unpack("<Id", answers.read(12))
        pixels = answers.read(size)
        self._free.put(number)
        return pixels


@contextmanager
def children(count: int) -> Iterator[Children]:
    """Start so many, with an empty environment."""
    command = [sys.executable, "-c", "from benchmarks.decoder_isolation import child; child()"]
    with ExitStack() as stack:
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd=HERE.parent)
            for _ in range(count)
        ]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield Children(processes)


def picture(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG of about 0.2 bytes a pixel, like a photograph."""
    cells = Image.effect_noise((size[0] // 5, size[1] // 5), 60 + seed % 8).convert("RGB")
    file = io.BytesIO()
    cells.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def measured(one: Callable[[bytes], bytes], pictures: list[bytes], cpu_s: Callable[[], float]) -> dict[str, float]:
    """Images a second and CPU milliseconds an image, all processes together."""
    before, started = cpu_s(), time.perf_counter()
    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(one, pictures))
    elapsed_s = time.perf_counter() - started
    return {
        "images_per_s": round(len(pictures) / elapsed_s, 2),
        "cpu_ms_per_image": round((cpu_s() - before) / len(pictures) * 1000, 3),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder_isolation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds; medians are reported (%(default)s)")
    rounds = parser.parse_args().rounds
    prepare_pillow(MAX_PIXELS)
    report: dict[str, Any] = {"parallel": PARALLEL, "sizes": {}}
    with children(PARALLEL) as pool:
        for name, (size, count) in SIZES.items():
            pictures = [picture(size, seed) for seed in range(8)] * (count // 8)
            if any(work(data) != pool.work(data) for data in pictures[:8]):
                raise RuntimeError("a child's pixels differ")

            def everybodys_cpu_s() -> float:
                return time.process_time() + sum(pool.cpu_s)

            found: dict[str, list[dict[str, float]]] = {"thread": [], "process": []}
            for _ in range(rounds):
                found["thread"].append(measured(work, pictures, everybodys_cpu_s))
                found["process"].append(measured(pool.work, pictures, everybodys_cpu_s))
            report["sizes"][name] = {
                "mean_bytes": sum(map(len, pictures)) // len(pictures),
                "median": {
                    where: {key: statistics.median(one[key] for one in all_of) for key in all_of[0]}
                    for where, all_of in found.items()
                },
                "rounds": found,
            }
            print(name, json.dumps(report["sizes"][name]["median"]))
        status = Path(f"/proc/{pool.pids[0]}/status").read_text()
        report["child_memory_kb"] = {
            field: int(status.partition(f"{field}:")[2].split()[0]) for field in ("VmHWM", "RssAnon", "RssFile")
        }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
