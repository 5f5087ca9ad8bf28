"""Measures the limits: the model's forward pass alone, and the best loop that one could write by hand around it.

The loop has its files in memory: Pillow decodes and resizes them, the model embeds them in batches, and each image's
scores over its labels are sorted. There is no network, no queue and no other process.
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
#: One pass of a loop embeds at most this many new prompts, or those of a single image if it has more. More prompts
#: would not use the cores better, and passes would take longer than a round.
MAX_NEW_PROMPTS = 256

Matrix = NDArray[np.float32]
#: The scores by label, best first.
Ranking = Mapping[str, float]


@dataclass(frozen=True)
class Way:
    """How a loop uses the cores.

    Attributes:
        batch: the number of images in one forward pass.
        parallel: the number of concurrent passes, each on its share of the cores.
        ahead: whether other threads decode the next batch during a pass; otherwise each thread decodes its own batches.
    """

    batch: int
    parallel: int
    ahead: bool = False


@dataclass(frozen=True)
class Rate:
    """A loop's images per second, and this process's CPU time per image."""

    per_s: float
    cpu_ms: float


class BareModel:
    """A loaded checkpoint that is called directly, without a queue.

    Args:
        folder: the checkpoint's folder.
        pictures: the contents of image files.
    """

    def __init__(self, folder: Path, pictures: Sequence[bytes]) -> None:
        self._model = load_model(str(folder), device="cpu")
        self._model.warm_up()
        self._pictures = pictures
        self._known: dict[tuple[str, ...], tuple[list[str], Matrix]] = {}

    @property
    def ways(self) -> list[Way]:
        """The ways to try: one pass at a time on all cores, and as many concurrent passes as a worker runs."""
        apart = self._model.parallel_batches
        alone = [Way(batch, 1, ahead=True) for batch in (8, 16, 32)]
        return alone + [Way(batch, apart, ahead) for batch in (4, 8, 16) for ahead in (False, True) if apart > 1]

    def forward(self, way: Way, duration_s: float) -> Rate:
        """Measure the forward pass on prepared pixels."""
        batch = [self._prepare(0)] * way.batch

        def passes() -> Callable[[], int]:
            return lambda: len(self._model.embed_images(batch, way.parallel))

        return steady_rate(passes, way.parallel, duration_s)

    def loop(self, way: Way, duration_s: float, labels: Labels) -> Rate:
        """Measure the loop. Labels that all images share are embedded beforehand, other labels in each pass."""
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
        """The numbers of parts into which the cores are divided for a lone image, which uses one part."""
        return sorted({1, self._model.parallel_batches})

    def answer(self, number: int, labels: Sequence[str], parallel: int = 1) -> Ranking:
        """Call the model directly: rank cached labels for one image, from its file."""
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
        """Embed all sets of labels together; return each set with its embeddings. All sets have the same size."""
        rows = self._model.embed_texts([f"This is a photo of {label}." for one in sets for label in one], parallel)
        return list(zip(sets, np.split(rows, len(sets)), strict=True))

    def _ranked(self, vector: Matrix, labels: Sequence[str], matrix: Matrix) -> Ranking:
        values = scores(self._model.logits(vector, matrix), self._model.scoring)
        order = np.argsort(-values)
        return dict(zip((labels[place] for place in order), values[order].tolist(), strict=True))


def pass_of(way: Way, labels: Labels) -> tuple[int, int]:
    """Return the number of images in a loop's pass, and in each of its forward passes.

    All images that share labels of their own are in one pass, so that each pass has the same work.
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
    """Return the images per second of threads that run passes concurrently.

    Each thread's rate is computed at the end of its first pass after ``duration_s``. The thread then continues until
    all threads have a rate, so that none has the cores to itself at the end.

    Args:
        make_pass: returns a pass for each thread, which returns the number of its images.
        is_warm: whether the first pass already counts.
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
