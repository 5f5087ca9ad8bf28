"""``celery -A worker worker`` with a checkpoint of every family gives a plain Celery client the pipeline's scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.acceptance.conftest import StartWorker
from tests.acceptance.origin import Origin
from tests.model.checkpoints import SMALL
from tests.valkey_server import ValkeyServer

TIMEOUT_S = 60
LABEL_SETS = [["a fox", "bear", "zebra"], ["owl"], ["bear", "a small dog running on the beach", "owl", "a fox"]]

#: A variant whose pipeline cuts tokens off every prompt; `tests/model` compares it with the model used by hand.
FAMILIES = [family for family in SMALL if family != "blip-2-image-token"]

#: One family with softmax and one with sigmoid; in `make test`, `tests/model` compares all families.
FEW = ("clip", "siglip2")


@pytest.mark.parametrize(
    "family", [name if name in FEW else pytest.param(name, marks=pytest.mark.thorough) for name in FAMILIES]
)
def test_scores_are_those_of_the_pipeline(
    family: str,
    start_worker: StartWorker,
    checkpoint: Callable[[str], Path],
    pipeline: Callable[[str], Any],
    valkey: ValkeyServer,
    origin: Origin,
    tmp_path: Path,
) -> None:
    worker = start_worker(checkpoint(family), prefix=family)
    files = {path: tmp_path / path[1:] for path in ("/owl.png", "/car.jpg")}
    for path, file in files.items():
        file.write_bytes(origin.pages[path][1])
    worker.wait_until_ready()

    urls = {"broker": valkey.url(0, "producer", family), "backend": valkey.url(1, "producer", family)}
    with Celery(**urls, set_as_current=False) as plain:
        jobs = [(path, labels, ask(plain, family, origin.url(path), labels)) for path in files for labels in LABEL_SETS]

        for path, labels, job in jobs:
            ranking = {item["label"]: item["score"] for item in job.get(TIMEOUT_S)["ranking"]}
            expected = {
                item["label"]: item["score"] for item in pipeline(family)(str(files[path]), candidate_labels=labels)
            }
            assert ranking == pytest.approx(expected, abs=1e-5)
            assert list(ranking) == list(expected)
    assert worker.stop() == 0


def ask(plain: Celery, prefix: str, image: str, labels: list[str]) -> Any:
    kwargs = {"image": image, "candidate_labels": labels}
    return plain.send_task("nameshot.classify", kwargs=kwargs, queue=f"{prefix}.default")
