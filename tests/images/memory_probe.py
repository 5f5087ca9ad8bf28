"""Measures how much memory a worker needs for a folder of files: ``python -m tests.images.memory_probe FOLDER``.

It runs in its own process, because a process's peak of memory never falls. It prints the growth of the peak in bytes
and every outcome, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from PIL import Image

from producer.contract.job import ClassifyManyJob, Question
from producer.contract.result import Result
from tests.chaos.null_model import NullModel
from worker.classifier import Attempt, Classifier
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.decoding.images import prepare_pillow
from worker.decoding.preparing import InThreads
from worker.embeddings.image_cache import ImageEmbeddings
from worker.embeddings.label_cache import LabelCache
from worker.engine.capacity import DECODING_BYTES_PER_PIXEL
from worker.engine.local import LocalEngine
from worker.fetch.files import File
from worker.observability.metrics import Telemetry
from worker.runtime.allocator import bound_malloc

MAX_PIXELS = 12_000_000
CONCURRENCY = 12


class Files:
    """A fetcher that reads files, whose URLs are paths."""

    def fetch(self, url: str, **_: object) -> File:
        return File(Path(url).read_bytes())

    def close(self) -> None:
        pass


def peak_bytes() -> int:
    """Return this process's peak of memory. (`ru_maxrss` is no less than the parent process's.)"""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def main(folder: Path) -> None:
    """Classify all files in bulk messages, with a slow device, so that decoded images wait for it."""
    bound_malloc()
    prepare_pillow(MAX_PIXELS)
    engine = LocalEngine(NullModel(forward_ms=100), max_batch=4, on_device_lost=lambda: None)
    preparing = InThreads(
        NullModel(), Budget(DECODING_BYTES_PER_PIXEL * MAX_PIXELS, "no memory"), geometry=None, max_pixels=MAX_PIXELS
    )
    classifier = Classifier(
        model=NullModel(),
        fetcher=Files(),
        images=ImageEmbeddings(preparing, engine, max_bytes=0),
        labels=LabelCache(engine),
        telemetry=Telemetry(),
        concurrency=CONCURRENCY,
    )

    def codes(files: list[str]) -> list[str]:
        job = ClassifyManyJob(files, Question(["owl", "fox"]))
        outcomes = classifier.classify_many(job, Attempt(CancelScope(time.monotonic() + 100)))
        return ["ok" if isinstance(outcome, Result) else outcome.code for outcome in outcomes]

    Image.new("RGB", (8, 8)).save(folder / "first.png")
    codes([str(folder / "first.png")])
    before = peak_bytes()
    files = sorted(str(file) for file in folder.iterdir())
    found = [code for start in range(0, len(files), 64) for code in codes(files[start : start + 64])]
    print(json.dumps({"growth_bytes": peak_bytes() - before, "codes": found}))
    classifier.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
