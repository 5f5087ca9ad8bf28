"""Compares scores with those of Transformers' zero-shot pipeline, on this device and on the CPU, in both precisions.

The checkpoints are small and random, of five families, each with its recipe's mild temperature and with the published
one of CLIP (100) or SigLIP (117, bias -12.9), with which every rounding counts thirteen times as much.
"""

from __future__ import annotations

import importlib
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from tests.model.checkpoints import make_checkpoint
from tests.model.pictures import decoded, write_all
from worker.model import Model, load_model

FAMILIES: Final = ("clip", "siglip", "altclip", "blip-2", "siglip2")
LABELS: Final = ["a fox", "two cats sleeping on a large red table", "bear", "eine Straße in Köln, 1930", "zebra"]
TEMPLATE: Final = "This is a photo of {}."
#: The natural logarithm of the scale, and the bias, of OpenAI's and Google's checkpoints.
PUBLISHED: Final = {"softmax": (math.log(100), 0.0), "sigmoid": (math.log(117.3), -12.93)}
#: The differences that the README promises; in float16, for a mild temperature only.
FLOAT32_LIMIT: Final = 1e-5
FLOAT16_LIMIT: Final = 2e-3
#: The sizes of the batches in which one picture is embedded.
COMPANY: Final = (1, 2, 7, 64)

Scores = npt.NDArray[np.float64]


def run(given: Given, notes: Notes) -> None:
    """Compare the scores of all checkpoints."""
    work = Path(given.folder) / "first-gpu-parity"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "pictures").mkdir()
    pictures = write_all(work / "pictures")[: 3 if given.quick else 8]
    table: dict[str, dict[str, float]] = {}
    for family in FAMILIES[: 1 if given.quick else None]:
        mild = make_checkpoint(family, work / family)
        for name, folder in ((family, mild), (f"{family}, published temperature", _hotter(mild))):
            table[name] = dict(_compared(folder, given, pictures, tight=folder == mild, notes=notes, name=name))
            notes.figure("differences", table)
    for number in ("float32", "float16"):
        worst = max(row[f"{number} against the CPU"] for row in table.values())
        notes.line(f"{number}: scores at most {worst:.1e} from the pipeline's on the CPU in float32")
    notes.line(
        f"company: vectors differ by at most {max(row['company'] for row in table.values()):.1e} in other batches"
    )
    if given.on_gpu:
        import torch

        peak_mib = torch.cuda.max_memory_allocated(given.device) >> 20
        notes.figure("peak_mib", peak_mib)
    shutil.rmtree(work, ignore_errors=True)


def _compared(
    folder: Path, given: Given, pictures: Sequence[Path], *, tight: bool, notes: Notes, name: str
) -> Iterator[tuple[str, float]]:
    reference = _pipeline_scores(folder, "cpu", "float32", pictures)
    full = load_model(str(folder), device=given.device, dtype="float32")
    ours = _scores(full, pictures)
    yield _checked("float32 against the CPU", ours, reference, FLOAT32_LIMIT, notes, name)
    there = _pipeline_scores(folder, given.device, "float32", pictures)  # `load_model` has disabled TF32
    yield _checked("float32 against the same device", ours, there, FLOAT32_LIMIT, notes, name)
    half_model = load_model(str(folder), device=given.device, dtype="float16")
    half = _scores(half_model, pictures)
    yield _checked("float16 against the CPU", half, reference, FLOAT16_LIMIT if tight else None, notes, name)
    yield "float16 against the CPU, mean", float(np.abs(half - reference).mean())
    there = _pipeline_scores(folder, given.device, "float16", pictures)
    yield _checked("float16 against the same device in float16", half, there, None, notes, name)
    yield "company", _moved_by_company(full, pictures[0], pictures[1])


def _checked(
    what: str, ours: Scores, theirs: Scores, limit: float | None, notes: Notes, name: str
) -> tuple[str, float]:
    found = float(np.abs(ours - theirs).max())
    if limit is not None:
        notes.check(f"{name}: {what}: at most {limit:g}", found <= limit, f"{found:.2e}")
    return what, found


def _scores(model: Model, pictures: Sequence[Path]) -> Scores:
    """Return the scores, (pictures, labels), from one batch with all pictures."""
    prepared = [model.prepare(decoded(picture)) for picture in pictures]
    texts = model.embed_texts([TEMPLATE.replace("{}", label) for label in LABELS])
    rows = []
    for image in model.embed_images(prepared):
        logits = model.logits(image, texts).astype(np.float64)
        powers = np.exp(logits - logits.max())
        rows.append(1 / (1 + np.exp(-logits)) if model.scoring == "sigmoid" else powers / powers.sum())
    return np.stack(rows)


def _pipeline_scores(folder: Path, device: str, dtype: str, pictures: Sequence[Path]) -> Scores:
    import torch

    transformers: Any = importlib.import_module("transformers")
    source = str(folder)
    pipeline = transformers.pipeline(
        "zero-shot-image-classification",
        model=source,
        tokenizer=source,
        image_processor=source,
        device=device,
        dtype=getattr(torch, dtype),
    )
    rows = []
    for picture in pictures:
        said = {entry["label"]: entry["score"] for entry in pipeline(str(picture), candidate_labels=LABELS)}
        rows.append([said[label] for label in LABELS])
    return np.array(rows)


def _moved_by_company(model: Model, picture: Path, other: Path) -> float:
    """Return by how much one picture's unit vector depends on the other pictures in its batch."""
    image, company = model.prepare(decoded(picture)), model.prepare(decoded(other))
    vectors = [model.embed_images([image, *[company] * (size - 1)])[0] for size in COMPANY]
    return max(float(np.abs(vector - vectors[0]).max()) for vector in vectors)


def _hotter(folder: Path) -> Path:
    """Return a copy of the checkpoint with a published temperature."""
    from safetensors.numpy import load_file, save_file

    hot = folder.with_name(f"{folder.name}-hot")
    shutil.copytree(folder, hot)
    weights = load_file(hot / "model.safetensors")
    scale, bias = PUBLISHED["sigmoid" if "logit_bias" in weights else "softmax"]
    for name, value in (("logit_scale", scale), ("logit_bias", bias)):
        if name in weights:
            weights[name] = np.full_like(weights[name], value)
    save_file(weights, hot / "model.safetensors", metadata={"format": "pt"})
    return hot
