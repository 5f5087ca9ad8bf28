"""Job n of a run: its sender, pictures, labels and right rankings."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PIL import Image

from producer.contract.labels import DEFAULT_TEMPLATE, fill
from producer.contract.names import Queue
from producer.errors import JobFailed
from producer.operations.answers import Answer
from tests.chaos.null_model import SIDE_PIXELS, NullModel
from worker.ranking import rank, scores

Sender = Literal["client", "plain"]
#: The three producers, each of which sends every third job: two use our client, the third only Celery.
SENDERS: tuple[Sender, ...] = ("client", "client", "plain")
#: Every fourth job of the plain Celery program is a bulk message with `BULK_PICTURES` pictures.
BULK_EVERY, BULK_PICTURES = 12, 6
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
    """One job, which its number and the run's seed determine.

    Attributes:
        picture: the path of the only or first picture.
        pictures: the paths of all pictures; the last one of a bulk message is on a server that may stall.
    """

    id: str
    sender: Sender
    queue: Queue
    pictures: list[str]
    labels: list[str]

    @property
    def picture(self) -> str:
        return self.pictures[0]

    @property
    def is_bulk(self) -> bool:
        """Whether the job is a bulk message with several pictures."""
        return len(self.pictures) > 1


def job(seed: int, number: int) -> ChaosJob:
    """Return job ``number`` of the run with this seed."""
    labels = random.Random(number % QUESTIONS).sample(LABELS, 4)
    is_bulk = number % BULK_EVERY == BULK_EVERY - 1
    pictures = [f"/{(number + more) % PICTURES}.png" for more in range(BULK_PICTURES if is_bulk else 1)]
    queue: Queue = "bulk" if is_bulk else "high" if number % 10 == 0 else "default"
    return ChaosJob(job_id(seed, number), SENDERS[number % len(SENDERS)], queue, pictures, labels)


def job_id(seed: int, number: int) -> str:
    """Return ``chaos-<seed>-<number>``."""
    return f"chaos-{seed}-{number}"


def number_of(job_id: str) -> int:
    """Return the number in a job's id."""
    return int(job_id.rpartition("-")[2])


def is_of_our_client(job_id: str) -> bool:
    """Return whether our client sends the job. A plain client claims no id, so its lost job looks as if it waited."""
    return job(0, number_of(job_id)).sender == "client"


def pages() -> dict[str, tuple[str, bytes]]:
    """Return the pictures as pages for `tests.acceptance.origin.Origin`."""
    return {f"/{number}.png": ("image/png", _png(number)) for number in range(PICTURES)}


def right_ranking(number: int) -> list[str]:
    """Return the labels of job ``number`` in the order in which every worker must rank them."""
    return _ranking(number % PICTURES, number % QUESTIONS)


@cache
def _ranking(picture: int, question: int) -> list[str]:
    labels = job(0, question).labels
    model = NullModel()
    with Image.open(io.BytesIO(_png(picture))) as image:
        vectors = model.embed_images([model.prepare(image)])
    texts = model.embed_texts([fill(DEFAULT_TEMPLATE, label) for label in labels])
    return [score.label for score in rank(labels, scores(model.logits(vectors[0], texts), model.scoring), None)]


def mistakes(answer: Answer, number: int) -> list[str]:
    """Return what is wrong with the answer of job ``number``; a retryable failure is no mistake, any other is."""
    asked = job(0, number)
    if answer.state != "succeeded":
        return [] if _may_be(answer.error) else [getattr(answer.error, "code", answer.state)]
    if not asked.is_bulk:
        ranked = [score.label for score in answer.result().ranking]
        return [] if ranked == right_ranking(number) else ["another ranking"]
    found: list[str] = []
    for more, outcome in enumerate(answer.outcomes(asked.pictures)):
        if outcome.result is None:
            found += [] if _may_be(outcome.error) else [getattr(outcome.error, "code", "no outcome")]
        elif [score.label for score in outcome.result.ranking] != _ranking(
            (number + more) % PICTURES, number % QUESTIONS
        ):
            found.append("another ranking")
    return found


def _may_be(error: Exception | None) -> bool:
    return isinstance(error, JobFailed) and error.retryable


def _png(number: int) -> bytes:
    image = Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS), (31 * number, 255 - 31 * number, 128))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
