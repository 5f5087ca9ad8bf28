"""Label embeddings, kept across jobs: each prompt goes through the text tower once.

Two bounded LRU caches: one vector per prompt, and one matrix per question, since most producers send the same
labels with every image. The vectors are requested before the image is downloaded, so that new labels are
embedded while the network is being waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from producer.contract import Question, fill
from producer.errors import JobFailed
from worker.bounded import Bounded
from worker.cancel_scope import CancelScope

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

#: 128 MiB hold 43,000 vectors of 768 float32; a GPU worker's model weighs ten times that.
MAX_VECTOR_BYTES: Final = 128 * 2**20
#: A matrix repeats vectors that are cached already; 64 MiB hold 21 questions of 1,000 labels.
MAX_MATRIX_BYTES: Final = 64 * 2**20


class TextTower(Protocol):
    """What the label cache needs of the engine."""

    max_tokens: int

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, special tokens included."""
        ...

    def embed_prompt(self, prompt: str) -> Future[Vector]:
        """Queue one prompt for the text tower."""
        ...


class LabelCache:
    """Answers questions with a matrix of label embeddings.

    Args:
        tower: counts and embeds prompts.
        max_vector_bytes, max_matrix_bytes: bounds of the two caches.
    """

    def __init__(
        self, tower: TextTower, max_vector_bytes: int = MAX_VECTOR_BYTES, max_matrix_bytes: int = MAX_MATRIX_BYTES
    ) -> None:
        self._tower = tower
        self._lock = threading.Lock()
        self._vectors: Bounded[Vector] = Bounded(max_vector_bytes)
        self._matrices: Bounded[Matrix] = Bounded(max_matrix_bytes)
        self._pending: dict[str, Future[Vector]] = {}
        self.hits = 0
        self.misses = 0

    def request(self, question: Question) -> Callable[[CancelScope], Matrix]:
        """Start embedding what is not known yet; return a function that waits for the matrix while a scope lasts.

        The matrix has shape (labels, d), float32, rows in the order of the labels; with several templates each
        row is the normalised mean of the normalised embeddings (CLIP's prompt ensembling).

        Raises:
            JobFailed: ``invalid_job``, a label that has more tokens inside its template than the model reads.
        """
        key = (tuple(question.candidate_labels), tuple(question.templates))
        with self._lock:
            if (matrix := self._matrices.recall(key)) is not None:
                self.hits += len(question.candidate_labels)
                return lambda _scope: matrix
        prompts = [fill(template, label) for label in question.candidate_labels for template in question.templates]
        futures, known = self._look_up(prompts)
        if missing := [prompt for prompt in dict.fromkeys(prompts) if prompt not in futures and prompt not in known]:
            self._check_lengths(question, missing)
            futures |= self._embed(missing)
        return lambda scope: self._gather(key, prompts, known, futures, len(question.templates), scope)

    def _look_up(self, prompts: Sequence[str]) -> tuple[dict[str, Future[Vector]], dict[str, Vector]]:
        known: dict[str, Vector] = {}
        with self._lock:
            futures = {prompt: self._pending[prompt] for prompt in prompts if prompt in self._pending}
            for prompt in prompts:
                if (vector := self._vectors.recall(prompt)) is not None:
                    known[prompt] = vector
            self.hits += len(known)
            self.misses += len(prompts) - len(known)
        return futures, known

    def _embed(self, prompts: Sequence[str]) -> dict[str, Future[Vector]]:
        futures: dict[str, Future[Vector]] = {}
        new: list[str] = []
        with self._lock:
            for prompt in prompts:
                if prompt not in self._pending:
                    self._pending[prompt] = self._tower.embed_prompt(prompt)
                    new.append(prompt)
                futures[prompt] = self._pending[prompt]
        # Outside the lock: a future that is done already calls back at once, in this thread.
        for prompt in new:
            futures[prompt].add_done_callback(partial(self._arrived, prompt))
        return futures

    def _arrived(self, prompt: str, future: Future[Vector]) -> None:
        with self._lock:
            self._pending.pop(prompt, None)
            if not future.cancelled() and future.exception() is None:
                self._vectors.remember(prompt, future.result())

    def _gather(
        self,
        key: Hashable,
        prompts: Sequence[str],
        known: dict[str, Vector],
        futures: dict[str, Future[Vector]],
        templates: int,
        scope: CancelScope,
    ) -> Matrix:
        try:
            rows = [known[prompt] if prompt in known else scope.result_of(futures[prompt]) for prompt in prompts]
        except TimeoutError:
            raise JobFailed("deadline_exceeded", "the labels were not embedded within the job's time.") from None
        matrix = np.stack(rows)
        if templates > 1:
            mean = matrix.reshape(-1, templates, matrix.shape[1]).mean(axis=1)
            matrix = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        matrix.setflags(write=False)
        with self._lock:
            self._matrices.remember(key, matrix)
        return matrix

    def _check_lengths(self, question: Question, prompts: Sequence[str]) -> None:
        """Refuse what the text tower would cut silently."""
        limit = self._tower.max_tokens
        too_long = {
            prompt: tokens
            for prompt, tokens in zip(prompts, self._tower.count_tokens(prompts), strict=True)
            if tokens > limit
        }
        if not too_long:
            return
        for label in question.candidate_labels:
            for template in question.templates:
                if (tokens := too_long.get(fill(template, label))) is not None:
                    raise JobFailed(
                        "invalid_job",
                        f"the label {label!r} has {tokens} tokens inside its template, "
                        f"and the model reads {limit}; shorten it.",
                    )
