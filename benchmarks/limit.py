"""The limits: the model's forward pass alone, and the best loop that one could write by hand around it.

The loop has its files in memory: Pillow decodes and resizes them, the model embeds them in batches, and each image's
scores over its labels are sorted. No network, no queue, no process but this one.
"""

from __future__ import annotations

import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.labels import Labels
from worker.model import load_model
from worker.model.interface import Prepared
from worker.ranking import scores

CORES = os.cpu_count() or 1
#: New prompts that one pass of a loop embeds at most, where one image has fewer: more fill no core better, and passes
#: would take longer than a round.
MAX_NEW_PROMPTS = 256

Matrix = NDArray[np.float32]
#: Score by label, best first.
Ranking = Mapping[str, float]


@dataclass(frozen=True)
class Way:
    """How a loop spends the cores.

    Attributes:
        batch: images of one forward pass.
        parallel: passes at once, each on its share of the cores.
        ahead: threads decode the next batch meanwhile; else the thread that computes a batch has decoded it.
    """

    batch: int
    parallel: int
    ahead: bool = False


@dataclass(frozen=True)
class Rate:
    """What a loop came to; CPU time is this process's."""

    per_s: float
    cpu_ms: float


class BareModel:
    """A checkpoint outside any queue.

    Args:
        folder: the checkpoint.
        pictures: files.
    """

    def __init__(self, folder: Path, pictures: Sequence[bytes]) -> None:
        self._model = load_model(str(folder), device="cpu")
        self._model.warm_up()
        self._pictures = pictures
        self._known: dict[tuple[str, ...], tuple[list[str], Matrix]] = {}

    @property
    def ways(self) -> list[Way]:
        """What is worth trying: one pass at a time on all cores, and as many at once as the worker runs."""
        apart = self._model.parallel_batches
        alone = [Way(batch, 1, ahead=True) for batch in (8, 16, 32)]
        return alone + [Way(batch, apart, ahead) for batch in (4, 8, 16) for ahead in (False, True) if apart > 1]

    def forward(self, way: Way, duration_s: float) -> Rate:
        """The forward pass on pixels that are ready."""
        batch = [self._prepare(0)] * way.batch

        def passes() -> Callable[[], int]:
            return lambda: len(self._model.embed_images(batch, way.parallel))

        return steady_rate(passes, way.parallel, duration_s)

    def loop(self, way: Way, duration_s: float, labels: Labels) -> Rate:
        """Decode, embed, score. Labels that all share are embedded beforehand, others in each pass."""
        images, batch = pass_of(way, labels)
        shared_by = labels.shared_by
        same = [self._shared(labels.next_set())] * images if shared_by is None else []
        with ThreadPoolExecutor(CORES) if way.ahead else nullcontext() as decoders:

            def passes() -> Callable[[], int]:
                batches = self._batches(batch, decoders)

                def one_pass() -> int:
                    known = same
                    if shared_by is not None:
                        new = [labels.next_set() for _ in range(images // shared_by)]
                        known = [one for one in self._matrices(new, way.parallel) for _ in range(shared_by)]
                    for first in range(0, images, batch):
                        vectors = self._model.embed_images(next(batches), way.parallel)
                        for vector, (names, matrix) in zip(vectors, known[first:], strict=False):
                            self._ranked(vector, names, matrix)
                    return images

                return one_pass

            return steady_rate(passes, way.parallel, duration_s, is_warm=shared_by is not None)

    @property
    def shares(self) -> list[int]:
        """Into how many parts the cores are divided, of which a lone image has one: none, or one a batch."""
        return sorted({1, self._model.parallel_batches})

    def answer(self, number: int, labels: Sequence[str], parallel: int = 1) -> Ranking:
        """One image alone, from its file to its scores, with labels that are known: the direct call."""
        vector = self._model.embed_images([self._prepare(number)], parallel)[0]
        return self._ranked(vector, *self._shared(labels))

    def _prepare(self, number: int) -> Prepared:
        with Image.open(io.BytesIO(self._pictures[number % len(self._pictures)])) as picture:
            return self._model.prepare(picture.convert("RGB"))

    def _batches(self, size: int, decoders: ThreadPoolExecutor | None) -> Iterator[list[Prepared]]:
        numbers = (range(first, first + size) for first in itertools.count(0, size))
        if decoders is None:
            for batch in numbers:
                yield [self._prepare(number) for number in batch]
            return
        pool = decoders

        def begun() -> list[Future[Prepared]]:
            return [pool.submit(self._prepare, number) for number in next(numbers)]

        ahead = begun()
        while True:
            ready, ahead = ahead, begun()
            yield [future.result() for future in ready]

    def _shared(self, labels: Sequence[str]) -> tuple[list[str], Matrix]:
        key = tuple(labels)
        if key not in self._known:
            (self._known[key],) = self._matrices([list(labels)], 1)
        return self._known[key]

    def _matrices(self, sets: Sequence[list[str]], parallel: int) -> list[tuple[list[str], Matrix]]:
        """Each set of equally many labels with their embeddings, all of them embedded together."""
        rows = self._model.embed_texts([f"This is a photo of {label}." for one in sets for label in one], parallel)
        return list(zip(sets, np.split(rows, len(sets)), strict=True))

    def _ranked(self, vector: Matrix, labels: Sequence[str], matrix: Matrix) -> Ranking:
        values = scores(self._model.logits(vector, matrix), self._model.scoring)
        order = np.argsort(-values)
        return dict(zip((labels[place] for place in order), values[order].tolist(), strict=True))


def pass_of(way: Way, labels: Labels) -> tuple[int, int]:
    """Images of a loop's pass, and of each of its forward passes.

    Images that share labels of their own are one pass, so that each pass is the same work.
    """
    if labels.shared_by is None:
        return way.batch, way.batch
    if labels.shared_by == 1:
        images = max(1, min(way.batch, MAX_NEW_PROMPTS // labels.count))
        return images, images
    return labels.shared_by, max(size for size in range(1, way.batch + 1) if labels.shared_by % size == 0)


def steady_rate(
    make_pass: Callable[[], Callable[[], int]], threads: int, duration_s: float, *, is_warm: bool = False
) -> Rate:
    """Images a second of threads that run passes side by side.

    Each thread's rate is taken at the end of its first pass after ``duration_s``, and it goes on until all are there:
    none has the cores to itself at the end, and none waits.

    Args:
        make_pass: gives each thread its own pass, which returns how many images it did.
        is_warm: no pass need go before those that count.
    """
    began_cpu_s: list[float] = []
    together = threading.Barrier(threads, action=lambda: began_cpu_s.append(time.process_time()))
    lock = threading.Lock()
    rates: list[float] = []

    def run() -> int:
        one_pass = make_pass()
        if not is_warm:
            one_pass()
        together.wait()
        started = time.perf_counter()
        images, is_counted = 0, False
        while len(rates) < threads and not together.broken:
            images += one_pass()
            elapsed_s = time.perf_counter() - started
            if elapsed_s >= duration_s and not is_counted:
                is_counted = True
                with lock:
                    rates.append(images / elapsed_s)
        return images

    def run_or_end_all() -> int:
        try:
            return run()
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(run_or_end_all) for _ in range(threads)]
        images = sum(future.result() for future in running)
    return Rate(sum(rates), (time.process_time() - began_cpu_s[0]) / images * 1000)
