"""Label embeddings, kept across jobs: each prompt goes through the text tower once.

Two bounded LRU caches: one vector per prompt, and one matrix per question, since most producers send the same
labels with every image. The vectors are requested before the image is downloaded, so that new labels are
embedded while the network is being waited for. A question may have 100,000 prompts (1,000 labels in 100 templates):
only so many of them wait for the device at a time, and none any more once its job has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Final, Protocol

from producer.contract import Question
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.lru import Bounded
from worker.concurrency.single_flight import SingleFlight
from worker.embeddings.reading import MAX_ASKED, Key, Matrix, Pending, Reading, Vector, prompts_of, too_late

#: 128 MiB hold 43,000 vectors of 768 float32; a GPU worker's model weighs ten times that.
MAX_VECTOR_BYTES: Final = 128 * 2**20
#: A matrix repeats vectors that are cached already; 64 MiB hold 21 questions of 1,000 labels.
MAX_MATRIX_BYTES: Final = 64 * 2**20


class TextTower(Protocol):
    """What the label cache needs of the engine."""

    max_tokens: int
    keeps_suspects_apart: bool

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Tokens of each prompt, special tokens included, while the scope lasts."""
        ...

    def embed_prompt(self, prompt: str, scope: CancelScope) -> Future[Vector]:
        """Queue one prompt of a job's for the text tower; cancelling the future takes it out while it waits."""
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
        self._pending: dict[Key, Pending] = {}
        #: Of those the ones that suspects asked for, by prompt.
        self._suspects: dict[str, list[Pending]] = {}
        #: Suspects that bring the same labels: one of them has their tokens counted.
        self._counts: SingleFlight[None] = SingleFlight()
        self.hits = 0
        self.misses = 0

    @contextmanager
    def request(self, question: Question, scope: CancelScope) -> Iterator[Callable[[], Matrix]]:
        """Start embedding what is not known yet; within the context, a function waits for the matrix.

        The matrix has shape (labels, d), float32, rows in the order of the labels; with several templates each
        row is the normalised mean of the normalised embeddings (CLIP's prompt ensembling). Several threads may ask
        for it. Prompts that still wait for the device when the context ends are taken back, unless another question
        wants them too.

        Args:
            scope: how long to wait. The function raises `JobFailed` (``deadline_exceeded``, or why a prompt could not
                be embedded) or `Cancelled`.

        Raises:
            JobFailed: ``invalid_job``, a label that has more tokens inside its template than the model reads;
                ``deadline_exceeded``.
            Cancelled: somebody has cancelled the scope.
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
        """Of a suspect that has to wait for its turn."""
        return scope.suspect.mark if scope.suspect and self._tower.keeps_suspects_apart else None

    def _want(self, prompt: str, scope: CancelScope) -> Vector | Pending:
        """The vector if it is known, else a share in what is on its way.

        What a suspect asked for may wait long for its turn, so only the suspect itself has a share in it.
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
            pending = self._pending[key] = Pending(key, self._tower.embed_prompt(prompt, scope))
            if mark is not None:
                self._suspects.setdefault(prompt, []).append(pending)
        # Outside the lock: a future that is done already calls back at once, in this thread.
        pending.future.add_done_callback(partial(self._arrived, pending))
        return pending

    def _arrived(self, pending: Pending, future: Future[Vector]) -> None:
        prompt = pending.key[0]
        with self._lock:
            self._forget(pending)
            is_known = not future.cancelled() and future.exception() is None
            if is_known:
                self._vectors.remember(prompt, future.result())
            others = list(self._suspects.get(prompt, ())) if is_known else []
        for other in others:  # nothing is left to run; the job that waits for it asks again
            other.future.cancel()

    def _forget(self, pending: Pending) -> None:
        """It is on its way no more; with the lock held."""
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]
        prompt = pending.key[0]
        if pending in (suspects := self._suspects.get(prompt, [])):
            suspects.remove(pending)
            if not suspects:
                del self._suspects[prompt]

    def _give_up(self, shares: Iterable[Pending]) -> None:
        """Return shares in prompts; those that nobody else wants are not embedded if they still wait."""
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
        """As `_check_lengths`, for suspects: the clocks of those that wait for another's turn stand, too."""
        resume = scope.pause_clock()
        try:
            self._counts.do(key, scope, lambda: self._check_lengths(question, scope))
        except TimeoutError:
            raise too_late() from None
        finally:
            resume()

    def _check_lengths(self, question: Question, scope: CancelScope) -> None:
        """Refuse what the text tower would cut silently, before anything is embedded."""
        limit = self._tower.max_tokens
        prompts = prompts_of(question)
        while some := list(islice(prompts, MAX_ASKED)):
            scope.check()
            if scope.is_over:
                raise too_late()
            with self._lock:
                new = {prompt: label for label, prompt in some if not self._is_known(prompt)}
            counts = self._tower.count_tokens(list(new), scope) if new else []
            for label, tokens in zip(new.values(), counts, strict=True):
                if tokens > limit:
                    raise JobFailed(
                        "invalid_job",
                        f"the label {label!r} has {tokens} tokens inside its template, "
                        f"and the model reads {limit}; shorten it.",
                    )

    def _is_known(self, prompt: str) -> bool:
        return prompt in self._vectors or (prompt, None) in self._pending or prompt in self._suspects
