"""Caches label embeddings across jobs, so that each prompt goes through the text tower once.

One bounded LRU cache holds a vector per prompt. Another holds a matrix per question, because most clients send the same
labels with every image. A job requests the vectors before it downloads the image, so that the device embeds new labels
during the download. A question may have 100,000 prompts (1,000 labels in 100 templates): a bounded number of them waits
for the device at a time, and when the job ends, those that no other job needs are cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Final

from producer.contract.job import Question
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.lru import Bounded
from worker.concurrency.single_flight import SingleFlight
from worker.embeddings.reading import (
    MAX_REQUESTED,
    Key,
    Matrix,
    Pending,
    Reading,
    ReadMatrix,
    Vector,
    prompts_of,
    too_late,
)
from worker.engine.batch_queue import BatchResult
from worker.engine.interface import Engine

#: 128 MiB, about a tenth of the size of a GPU worker's model, hold 43,000 vectors of 768 float32 numbers.
MAX_VECTOR_BYTES: Final = 128 * 2**20
#: 64 MiB hold the matrices of 21 questions with 1,000 labels each.
MAX_MATRIX_BYTES: Final = 64 * 2**20


class LabelCache:
    """Embeds the labels of questions, and caches the embeddings. Thread-safe.

    Args:
        engine: counts tokens and embeds prompts.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._vectors: Bounded[Vector] = Bounded(MAX_VECTOR_BYTES)
        self._matrices: Bounded[Matrix] = Bounded(MAX_MATRIX_BYTES)
        self._pending: dict[Key, Pending] = {}
        #: The pending prompts that suspects requested, by the prompt's text.
        self._suspects: dict[str, list[Pending]] = {}
        #: Of several suspects with the same labels, one counts the tokens for all.
        self._counts: SingleFlight[None] = SingleFlight()
        self.hits = 0
        self.misses = 0

    @contextmanager
    def request(self, question: Question, scope: CancelScope) -> Iterator[ReadMatrix]:
        """Request the prompts that are not cached, and yield a function that waits for the matrix and returns it.

        The matrix is float32 (labels, d), with rows in the order of the labels. With several templates each row is the
        normalised mean of the normalised embeddings (CLIP's prompt ensembling). Several threads may call the function.
        When the context ends, prompts that still wait for the device are cancelled, unless another question needs them.

        Args:
            scope: limits the wait for the prompts' lengths. The yielded function takes the scope that limits its own
                wait, and raises `JobFailed` (``deadline_exceeded``, or the failure of a prompt) or `Cancelled`.

        Raises:
            JobFailed: ``invalid_job`` for a label with more tokens inside its template than the model reads;
                ``deadline_exceeded``.
            Cancelled: the scope was cancelled.
        """
        key = (tuple(question.candidate_labels), tuple(question.templates))
        with self._lock:
            if (matrix := self._matrices.recall(key)) is not None:
                self.hits += len(question.candidate_labels)
        if matrix is not None:
            yield lambda _: matrix
            return
        if self._mark(scope) is None:
            self._check_lengths(question, scope)
        else:
            self._check_lengths_for_all(key, question, scope)
        reading = Reading(question, scope, self._request_prompt, self._give_up)
        try:
            reading.request_more()
            yield lambda image_scope: self._remember(key, reading.matrix(image_scope))
        finally:
            reading.close()

    def _remember(self, key: Hashable, matrix: Matrix) -> Matrix:
        with self._lock:
            self._matrices.remember(key, matrix)
        return matrix

    def _mark(self, scope: CancelScope) -> str | None:
        """Return the mark of the scope's suspect if that suspect must wait for a turn to run alone; otherwise None."""
        return scope.suspect.mark if scope.suspect and self._engine.keeps_suspects_apart else None

    def _request_prompt(self, prompt: str, scope: CancelScope) -> Vector | Pending:
        """Return a prompt's cached vector, or the pending prompt, requested now or by another question.

        A suspect's prompt may wait long for its turn, so other jobs do not wait for it.
        """
        mark = self._mark(scope)
        with self._lock:
            if (vector := self._vectors.recall(prompt)) is not None:
                self.hits += 1
                return vector
            self.misses += 1
            for key in ((prompt, None), (prompt, mark)):
                if (pending := self._pending.get(key)) is not None:
                    pending.questions += 1
                    return pending
            pending = self._pending[key] = Pending(key, self._engine.embed_prompt(prompt, scope))
            if mark is not None:
                self._suspects.setdefault(prompt, []).append(pending)
        # The lock is free here, because a future that is already done calls `_store` now, in this thread.
        pending.future.add_done_callback(partial(self._store, pending))
        return pending

    def _store(self, pending: Pending, future: Future[BatchResult[Vector]]) -> None:
        prompt = pending.key[0]
        with self._lock:
            self._forget(pending)
            is_known = not future.cancelled() and future.exception() is None
            if is_known:
                self._vectors.remember(prompt, future.result().output)
            others = list(self._suspects.get(prompt, ())) if is_known else []
        for other in others:  # jobs that wait for these futures request the prompt again and find it cached
            other.future.cancel()

    def _forget(self, pending: Pending) -> None:
        """Remove a pending prompt; the caller holds the lock."""
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]
        prompt = pending.key[0]
        if pending in (suspects := self._suspects.get(prompt, [])):
            suspects.remove(pending)
            if not suspects:
                del self._suspects[prompt]

    def _give_up(self, prompts: Iterable[Pending]) -> None:
        """Remove a question's need for these prompts, and cancel the prompts that no other question needs."""
        unwanted = []
        with self._lock:
            for pending in prompts:
                pending.questions -= 1
                if not pending.questions and self._pending.get(pending.key) is pending:
                    self._forget(pending)
                    unwanted.append(pending)
        for pending in unwanted:
            pending.future.cancel()

    def _check_lengths_for_all(self, key: Hashable, question: Question, scope: CancelScope) -> None:
        """Call `_check_lengths` once for all suspects with these labels, whose clocks are paused meanwhile."""
        resume = scope.pause_clock()
        try:
            self._counts.do(key, scope, lambda: self._check_lengths(question, scope))
        except TimeoutError:
            raise too_late() from None
        finally:
            resume()

    def _check_lengths(self, question: Question, scope: CancelScope) -> None:
        """Check, before any label is embedded, that the text tower reads each prompt without truncating it."""
        limit = self._engine.max_tokens
        prompts = prompts_of(question)
        while some := list(islice(prompts, MAX_REQUESTED)):
            scope.check()
            if scope.is_over:
                raise too_late()
            with self._lock:
                new = {prompt: label for label, prompt in some if not self._is_known(prompt)}
            counts = self._engine.count_tokens(list(new), scope) if new else []
            for label, tokens in zip(new.values(), counts, strict=True):
                if tokens > limit:
                    raise JobFailed(
                        "invalid_job",
                        f"the label {label!r} has {tokens} tokens inside its template, "
                        f"and the model reads {limit}; shorten it.",
                    )

    def _is_known(self, prompt: str) -> bool:
        return prompt in self._vectors or (prompt, None) in self._pending or prompt in self._suspects
