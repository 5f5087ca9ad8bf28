"""One call of Transformers' pipeline per Celery task: what most people would write first."""

from __future__ import annotations

import functools
import io
import os
from typing import Any

import requests
import torch
from celery import Celery
from celery.signals import worker_process_init
from PIL import Image
from transformers import pipeline

app = Celery(broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_BACKEND"])
# Celery recommends these settings for long tasks; with late acknowledgement, a lost worker does not lose its job.
app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)


@functools.cache
def tools() -> tuple[Any, requests.Session]:
    """Return the pipeline and a session, created once per process."""
    torch.set_num_threads(int(os.environ["PEER_TORCH_THREADS"]))
    return pipeline("zero-shot-image-classification", model=os.environ["PEER_MODEL"]), requests.Session()


@worker_process_init.connect
def load(**_: object) -> None:
    """Load the pipeline in each child of a prefork pool before its first job."""
    tools()


@app.task(name="classify")
def classify(url: str, labels: list[str]) -> list[dict[str, Any]]:
    """Classify one image."""
    classifier, session = tools()
    response = session.get(url, timeout=10)
    response.raise_for_status()
    answer: list[dict[str, Any]] = classifier(Image.open(io.BytesIO(response.content)), candidate_labels=labels)
    return answer
