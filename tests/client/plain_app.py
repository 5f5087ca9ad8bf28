"""A foreign Celery application that serves our task names with canned answers."""

import os
from typing import Any

from celery import Celery

from tests.client.stock_worker import result_for

app = Celery("plain", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BACKEND"])


@app.task(name="nameshot.classify")  # type: ignore[untyped-decorator]
def classify(image: str, candidate_labels: list[str]) -> dict[str, Any]:
    """Answer with the labels in the order in which they came."""
    assert image
    return result_for(candidate_labels)


@app.task(name="nameshot.classify_many")  # type: ignore[untyped-decorator]
def classify_many(images: list[str], candidate_labels: list[str], top_k: int) -> dict[str, Any]:
    """One such answer for each image."""
    return {"outcomes": [result_for(candidate_labels[:top_k]) for _ in images]}
