"""Caches label embeddings across jobs, so that each prompt goes through the text tower once.

There are two bounded LRU caches: one vector per prompt, and one matrix per question, since most clients send the same
labels with every image. The vectors are requested before the image is downloaded, so that the device embeds new labels
during the download. A question may have 100,000 prompts (1,000 labels in 100 templates): a bounded number of them waits
for the device at a time, and none once its job has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
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
from worker.embeddings.reading import MAX_ASKED, Key, Matrix, Pending, Reading, Vector, prompts_of, too_late
from worker.engine.batch_queue import BatchResult
from worker.engine.interface import Engine

#: 128 MiB hold 43,000 vectors of 768 float32; a GPU worker's model is ten times as large.
MAX_VECTOR_BYTES: Final = 128 * 2**20
#: A matrix repeats vectors that are already cached; 64 MiB hold 21 questions of 1,000 labels.
MAX_MATRIX_BYTES: Final = 64 * 2**20


class LabelCache:
    """Answers questions with a matrix of label embeddings.

    Args:
        engine: counts and embeds prompts.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._vectors: Bounded[Vector] = Bounded(MAX_VECTOR_BYTES)
        self._matrices: Bounded[Matrix] = Bounded(MAX_MATRIX_BYTES)
        self._pending: dict[Key, Pending] = {}
        #: Those of the pending prompts that suspects requested, by prompt.
        self._suspects: dict[str, list[Pending]] = {}
        #: Among suspects with the same labels, one has the tokens counted for all.
        self._counts: SingleFlight[None] = SingleFlight()
        self.hits = 0
        self.misses = 0

    @contextmanager
    def request(self, question: Question, scope: CancelScope) -> Iterator[Callable[[], Matrix]]:
        """Start embedding prompts that are not cached; the context's value is a function that waits for the matrix.

        The matrix has shape (labels, d), float32, rows in the order of the labels; with several templates each row is
        the normalised mean of the normalised embeddings (CLIP's prompt ensembling). Several threads may call the
        function. When the context ends, prompts that still wait for the device are cancelled, unless another question
        wants them too.

        Args:
            scope: limits the waits. The function raises `JobFailed` (``deadline_exceeded``, or the failure of a prompt)
                or `Cancelled`.

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
            yield lambda: matrix
            return
        if self._mark(scope) is None:
            self._check_lengths(question, scope)
        else:
            self._check_lengths_for_all(key, question, scope)
        reading = Reading(question, scope, self._want, self._give_up)
        try:
            reading.ask()
            yield lambda: self._keep(key, reading.matrix())
        finally:
            reading.close()

    def _keep(self, key: Hashable, matrix: Matrix) -> Matrix:
        with self._lock:
            self._matrices.remember(key, matrix)
        return matrix

    def _mark(self, scope: CancelScope) -> str | None:
        """Return the mark of a suspect that must wait for its turn, otherwise None."""
        return scope.suspect.mark if scope.suspect and self._engine.keeps_suspects_apart else None

    def _want(self, prompt: str, scope: CancelScope) -> Vector | Pending:
        """Return the cached vector, or a share in a pending prompt.

        A suspect's prompt may wait long for its turn, so only the suspect itself shares in it.
        """
        mark = self._mark(scope)
        with self._lock:
            if (vector := self._vectors.recall(prompt)) is not None:
                self.hits += 1
                return vector
            self.misses += 1
            for key in ((prompt, None), (prompt, mark)):
                if (pending := self._pending.get(key)) is not None:
                    pending.wanted_by += 1
                    return pending
            pending = self._pending[key] = Pending(key, self._engine.embed_prompt(prompt, scope))
            if mark is not None:
                self._suspects.setdefault(prompt, []).append(pending)
        # Outside the lock, since a future that is already done calls back at once, in this thread.
        pending.future.add_done_callback(partial(self._arrived, pending))
        return pending

    def _arrived(self, pending: Pending, future: Future[BatchResult[Vector]]) -> None:
        prompt = pending.key[0]
        with self._lock:
            self._forget(pending)
            is_known = not future.cancelled() and future.exception() is None
            if is_known:
                self._vectors.remember(prompt, future.result().output)
            others = list(self._suspects.get(prompt, ())) if is_known else []
        for other in others:  # no longer needed: the waiting job requests the prompt again and finds it cached
            other.future.cancel()

    def _forget(self, pending: Pending) -> None:
        """Remove a prompt from those pending; the caller holds the lock."""
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]
        prompt = pending.key[0]
        if pending in (suspects := self._suspects.get(prompt, [])):
            suspects.remove(pending)
            if not suspects:
                del self._suspects[prompt]

    def _give_up(self, shares: Iterable[Pending]) -> None:
        """Return shares in prompts, and cancel waiting prompts that no other question wants."""
        unwanted = []
        with self._lock:
            for pending in shares:
                pending.wanted_by -= 1
                if not pending.wanted_by and self._pending.get(pending.key) is pending:
                    self._forget(pending)
                    unwanted.append(pending)
        for pending in unwanted:
            pending.future.cancel()

    def _check_lengths_for_all(self, key: Hashable, question: Question, scope: CancelScope) -> None:
        """Call `_check_lengths` once for suspects with the same labels; their clocks stop until its turn."""
        resume = scope.pause_clock()
        try:
            self._counts.do(key, scope, lambda: self._check_lengths(question, scope))
        except TimeoutError:
            raise too_late() from None
        finally:
            resume()

    def _check_lengths(self, question: Question, scope: CancelScope) -> None:
        """Refuse labels that the text tower would truncate silently, before any is embedded."""
        limit = self._engine.max_tokens
        prompts = prompts_of(question)
        while some := list(islice(prompts, MAX_ASKED)):
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
