"""celery-batches: the worker collects messages, and one child of a prefork pool answers them together."""

from __future__ import annotations

import functools
import os

from celery import Celery
from celery.signals import worker_process_init
from celery_batches import Batches, SimpleRequest

from benchmarks.peers.model import MAX_BATCH, Classifier

app = Celery(broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_BACKEND"])
# The documentation requires more than `flush_every`. With several batches, one waits while another is computed.
app.conf.update(worker_prefetch_multiplier=8 * MAX_BATCH, task_acks_late=True)

model = functools.cache(Classifier)


@worker_process_init.connect
def load(**_: object) -> None:
    """Load the model in the pool's child before its first batch."""
    model()


@app.task(name="classify", base=Batches, flush_every=MAX_BATCH, flush_interval=0.05)
def classify(requests: list[SimpleRequest]) -> None:
    """Classify a batch, and store each request's answer, as celery-batches requires."""
    answers = model().classify([(request.args[0], request.args[1]) for request in requests])
    for request, answer in zip(requests, answers, strict=True):
        app.backend.mark_as_done(request.id, answer, request=request)
