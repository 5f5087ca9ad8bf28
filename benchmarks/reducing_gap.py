"""Measures what NAMESHOT_REDUCING_GAP saves and costs, in two minutes: ``python -m benchmarks.reducing_gap``.

It measures the CPU time to decode and resize a JPEG in this thread, and by how much the bundled model's scores change,
for the demo's pictures, enlarged, and for random mosaics, which have detail everywhere. The benchmark writes
``results/reducing_gap.json``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import statistics
import time
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_name
from benchmarks.picture_server import JPEG_QUALITY, picture
from producer.contract.job import Question
from producer.contract.labels import fill
from producer.demo.gallery import pictures
from worker.decoding.images import open_image, prepare_pillow
from worker.model import Model, load_model
from worker.model.geometry import Geometry
from worker.model.pixels import prepared
from worker.ranking import scores

RESULTS: Final = Path(__file__).parent / "results" / "reducing_gap.json"
SIZES: Final = ((640, 480), (1600, 1200), (4000, 3000))
#: None comes first, because the others are compared with it.
GAPS: Final = (None, 3.0, 2.0, 1.5)
ROUNDS: Final = 9
MAX_PIXELS: Final = 50_000_000
#: CPU times are measured with this geometry, because common models take 224 pixels. The bundled model takes fewer, so
#: its scores are computed with its own geometry.
CLIP: Final = Geometry(224, Image.Resampling.BICUBIC, (224, 224))


def pixels(data: bytes, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Decode a file as a decoder does, and return its pixels after resize and crop."""
    decoded = open_image(data, max_pixels=MAX_PIXELS).decode(geometry.least_side)
    return geometry.apply(decoded.image, decoded.width, decoded.height)


def cpu_ms(files: list[bytes], geometries: list[Geometry]) -> list[float]:
    """Return the median milliseconds to decode and resize a file, for each geometry, measured in turns."""
    taken: list[list[float]] = [[] for _ in geometries]
    for _ in range(ROUNDS):
        for data in files:
            for geometry, times in zip(geometries, taken, strict=True):
                started = time.thread_time()
                pixels(data, geometry)
                times.append((time.thread_time() - started) * 1000)
    return [statistics.median(times) for times in taken]


def enlarged(path: Path, size: tuple[int, int]) -> bytes:
    """Return a picture as a JPEG of another size."""
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def shifts(model: Model, data: bytes, candidate_labels: list[str], geometries: list[Geometry]) -> list[float]:
    """Return the largest change in a score for each geometry, compared with the first geometry."""
    question = Question(candidate_labels)
    texts = model.embed_texts([fill(question.templates[0], label) for label in candidate_labels])
    found = [
        scores(model.logits(model.embed_images([prepared(pixels(data, geometry))])[0], texts), model.scoring)
        for geometry in geometries
    ]
    return [float(np.abs(one - found[0]).max()) for one in found]


def main() -> None:
    """Measure all sizes; print and write the results."""
    prepare_pillow(MAX_PIXELS)
    model = load_model(str(files("worker") / "bundled" / "emoji-clip"), device="cpu")
    if model.geometry is None:
        raise RuntimeError("the bundled model has no `Geometry`")
    theirs, clips = (
        [dataclasses.replace(geometry, reducing_gap=gap) for gap in GAPS] for geometry in (model.geometry, CLIP)
    )
    gallery = pictures()
    labels = sorted({label for entry in gallery for label in entry.candidate_labels})
    rows: list[dict[str, Any]] = []
    table = Table(
        "JPEG", "gap", "CPU ms, to 224 pixels", "relative to off", "largest change: demo's pictures", "mosaics"
    )
    for size in SIZES:
        mosaics = [picture(seed, size) for seed in range(3)]
        costs = cpu_ms(mosaics, clips)
        of_gallery = [shifts(model, enlarged(entry.path, size), entry.candidate_labels, theirs) for entry in gallery]
        of_mosaics = [shifts(model, data, labels, theirs) for data in mosaics]
        for number, gap in enumerate(GAPS):
            moves = {
                "demo": round(max(each[number] for each in of_gallery), 5),
                "mosaics": round(max(each[number] for each in of_mosaics), 5),
            }
            row = {
                "width": size[0],
                "height": size[1],
                "reducing_gap": gap,
                "cpu_ms": round(costs[number], 2),
                "of_exact": round(costs[number] / costs[0], 3),
                "score_moves": moves,
            }
            rows.append(row)
            table.add_row(
                f"{size[0]}x{size[1]}",
                "off" if gap is None else f"{gap:g}",
                f"{row['cpu_ms']:.1f}",
                f"{row['of_exact']:.0%}",
                f"{moves['demo']:.5f}",
                f"{moves['mosaics']:.5f}",
            )
    Console(width=110).print(table)
    report = {"machine": cpu_name(), "model_input": model.geometry.shape(640, 480)[0], "rows": rows}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
