"""What is asked: job n of a run, its picture and labels, and the ranking that is right."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from functools import cache

from PIL import Image

from producer.contract import DEFAULT_TEMPLATE
from producer.contract.labels import fill
from tests.chaos.null_model import SIDE_PIXELS, NullModel
from worker.ranking import rank, scores

PICTURES = 8
QUESTIONS = 50
LABELS = (
    "ant",
    "bee",
    "cat",
    "dog",
    "elk",
    "fox",
    "gnu",
    "hen",
    "ibis",
    "jay",
    "koi",
    "lark",
    "mole",
    "newt",
    "owl",
    "pig",
)


@dataclass(frozen=True, slots=True)
class ChaosJob:
    """One job; its number and the run's seed say everything about it."""

    id: str
    picture: str
    labels: list[str]


def job(seed: int, number: int) -> ChaosJob:
    """Job ``number`` of the run with this seed."""
    labels = random.Random(number % QUESTIONS).sample(LABELS, 4)
    return ChaosJob(job_id(seed, number), f"/{number % PICTURES}.png", labels)


def job_id(seed: int, number: int) -> str:
    """``chaos-<seed>-<number>``."""
    return f"chaos-{seed}-{number}"


def number_of(job_id: str) -> int:
    """The number in a job's id."""
    return int(job_id.rpartition("-")[2])


def pages() -> dict[str, tuple[str, bytes]]:
    """The pictures, for `tests.acceptance.origin.Origin`."""
    return {f"/{number}.png": ("image/png", _png(number)) for number in range(PICTURES)}


@cache
def right_ranking(number: int) -> list[str]:
    """The labels of job ``number`` in the order in which every worker has to put them."""
    asked = job(0, number)
    model = NullModel()
    with Image.open(io.BytesIO(_png(number % PICTURES))) as image:
        vectors = model.embed_images([model.prepare(image)])
    texts = model.embed_texts([fill(DEFAULT_TEMPLATE, label) for label in asked.labels])
    ranking = rank(asked.labels, scores(model.logits(vectors[0], texts), model.scoring), None)
    return [score.label for score in ranking]


def _png(number: int) -> bytes:
    image = Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS), (31 * number, 255 - 31 * number, 128))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
