"""The model as a competent user of a batching server would call it; most peers use this class."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

#: This is the default of Transformers' pipeline.
TEMPLATE = "This is a photo of {}."
MAX_BATCH = 8
DOWNLOAD_TIMEOUT_S = 10.0

#: An image's URL and its labels.
Job = tuple[str, Sequence[str]]
#: ``[{"label": …, "score": …}]``, best first, as the pipeline returns it.
Ranking = list[dict[str, Any]]


class Classifier:
    """Runs CLIP on whole batches, on all cores.

    Args:
        folder: the checkpoint; None reads ``PEER_MODEL``.
    """

    def __init__(self, folder: str | None = None) -> None:
        folder = folder or os.environ["PEER_MODEL"]
        torch.set_num_threads(os.cpu_count() or 1)  # by default Ray's replicas get one thread
        self._model = AutoModel.from_pretrained(folder).eval()
        self._processor = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._session = requests.Session()
        self._downloads = ThreadPoolExecutor(MAX_BATCH)

    def classify(self, jobs: Sequence[Job]) -> list[Ranking]:
        """Rank each job's labels. Jobs with the same labels share one pass through both towers."""
        pictures = list(self._downloads.map(self._picture, [url for url, _ in jobs]))
        same_labels: dict[tuple[str, ...], list[int]] = {}
        for place, (_, labels) in enumerate(jobs):
            same_labels.setdefault(tuple(labels), []).append(place)
        answers: list[Ranking] = [[] for _ in jobs]
        for labels, places in same_labels.items():
            for place, scores in zip(places, self._scores([pictures[place] for place in places], labels), strict=True):
                ranked = sorted(zip(labels, scores, strict=True), key=lambda one: -one[1])
                answers[place] = [{"label": label, "score": score} for label, score in ranked]
        return answers

    def _picture(self, url: str) -> Image.Image:
        response = self._session.get(url, timeout=DOWNLOAD_TIMEOUT_S)
        response.raise_for_status()
        return Image.open(io.BytesIO(response.content)).convert("RGB")

    def _scores(self, pictures: list[Image.Image], labels: Sequence[str]) -> list[list[float]]:
        """Return the probabilities, by image and label."""
        text = self._tokenizer([TEMPLATE.format(label) for label in labels], padding=True, return_tensors="pt")
        pixels = self._processor(images=pictures, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**text, **pixels).logits_per_image
        scores: list[list[float]] = logits.softmax(dim=-1).tolist()
        return scores
