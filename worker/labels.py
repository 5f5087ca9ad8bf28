"""Label embeddings, kept across jobs: each prompt goes through the text tower once.

Two bounded LRU caches: one vector per prompt, and one matrix per question, since most producers send the same
labels with every image. The vectors are requested before the image is downloaded, so that new labels are
embedded while the network is being waited for. A question may have 100,000 prompts (1,000 labels in 100 templates):
only so many of them wait for the device at a time, and none any more once its job has ended.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from producer.contract import Question, fill
from producer.errors import JobFailed
from worker.bounded import Bounded
from worker.cancel_scope import Cancelled, CancelScope

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

#: 128 MiB hold 43,000 vectors of 768 float32; a GPU worker's model weighs ten times that.
MAX_VECTOR_BYTES: Final = 128 * 2**20
#: A matrix repeats vectors that are cached already; 64 MiB hold 21 questions of 1,000 labels.
MAX_MATRIX_BYTES: Final = 64 * 2**20
#: Prompts of one question that wait for the device at a time: a batch for each of a CPU's four threads. With more, the
#: new labels of other jobs would wait behind them; with fewer, a device would wait for the next to be asked.
MAX_ASKED: Final = 512


class TextTower(Protocol):
    """What the label cache needs of the engine."""

    max_tokens: int

    def count_tokens(self, prompts: Sequence[str], scope: CancelScope) -> list[int]:
        """Tokens of each prompt, special tokens included, while the scope lasts."""
        ...

    def embed_prompt(self, prompt: str) -> Future[Vector]:
        """Queue one prompt for the text tower; cancelling the future takes it out while it waits."""
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
        self._pending: dict[str, _Pending] = {}
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
        self._check_lengths(question, scope)
        reading = _Reading(question, scope, self._want, self._give_up)
        try:
            reading.ask()
            yield lambda: self._keep(key, reading.matrix())
        finally:
            reading.close()

    def _keep(self, key: Hashable, matrix: Matrix) -> Matrix:
        with self._lock:
            self._matrices.remember(key, matrix)
        return matrix

    def _want(self, prompt: str) -> Vector | _Pending:
        """The vector if it is known, else a share in what is on its way."""
        with self._lock:
            if (vector := self._vectors.recall(prompt)) is not None:
                self.hits += 1
                return vector
            self.misses += 1
            if (pending := self._pending.get(prompt)) is not None:
                pending.wanted_by += 1
                return pending
            pending = self._pending[prompt] = _Pending(prompt, self._tower.embed_prompt(prompt))
        # Outside the lock: a future that is done already calls back at once, in this thread.
        pending.future.add_done_callback(partial(self._arrived, prompt))
        return pending

    def _arrived(self, prompt: str, future: Future[Vector]) -> None:
        with self._lock:
            if (pending := self._pending.get(prompt)) is not None and pending.future is future:
                del self._pending[prompt]
            if not future.cancelled() and future.exception() is None:
                self._vectors.remember(prompt, future.result())

    def _give_up(self, shares: Iterable[_Pending]) -> None:
        """Return shares in prompts; those that nobody else wants are not embedded if they still wait."""
        unwanted = []
        with self._lock:
            for pending in shares:
                pending.wanted_by -= 1
                if not pending.wanted_by and self._pending.get(pending.prompt) is pending:
                    del self._pending[pending.prompt]
                    unwanted.append(pending)
        for pending in unwanted:
            pending.future.cancel()

    def _check_lengths(self, question: Question, scope: CancelScope) -> None:
        """Refuse what the text tower would cut silently, before anything is embedded."""
        limit = self._tower.max_tokens
        prompts = _prompts(question)
        while some := list(islice(prompts, MAX_ASKED)):
            scope.check()
            if scope.is_over:
                raise _late()
            with self._lock:
                new = {prompt: label for label, prompt in some if not self._is_known(prompt)}
            for label, tokens in zip(new.values(), self._tower.count_tokens(list(new), scope), strict=True):
                if tokens > limit:
                    raise JobFailed(
                        "invalid_job",
                        f"the label {label!r} has {tokens} tokens inside its template, "
                        f"and the model reads {limit}; shorten it.",
                    )

    def _is_known(self, prompt: str) -> bool:
        return prompt in self._vectors or prompt in self._pending


@dataclass(slots=True, eq=False)
class _Pending:
    """A prompt on its way through the text tower, and how many questions want it."""

    prompt: str
    future: Future[Vector]
    wanted_by: int = 1


class _Reading:
    """A question's prompts, read in order while those ahead are on their way: `MAX_ASKED` at most.

    Args:
        want: asks for a prompt.
        give_up: takes back what was asked for.
    """

    def __init__(
        self,
        question: Question,
        scope: CancelScope,
        want: Callable[[str], Vector | _Pending],
        give_up: Callable[[Iterable[_Pending]], None],
    ) -> None:
        self._scope = scope
        self._want = want
        self._give_up = give_up
        self._prompts = _prompts(question)
        self._templates = len(question.templates)
        self._asked: deque[Vector | _Pending] = deque()
        self._label: list[Vector] = []
        self._rows: list[Vector] = []
        self._matrix: Matrix | None = None
        # The images of a bulk message share a reading: whichever comes first reads for all.
        self._turn = threading.Lock()
        self._is_closed = False

    def ask(self) -> None:
        """Have as many prompts under way as may be."""
        for _, prompt in islice(self._prompts, MAX_ASKED - len(self._asked)):
            self._asked.append(self._want(prompt))

    def matrix(self) -> Matrix:
        """Wait for all rows; see `LabelCache.request`."""
        with self._turn:
            if self._matrix is not None:
                return self._matrix
            if self._is_closed:
                raise Cancelled  # an image that is still under way when its message has ended
            while self._asked:
                self._label.append(self._next())
                self._asked.popleft()
                self.ask()
                if len(self._label) == self._templates:
                    self._rows.append(_mean(self._label))
                    self._label.clear()
            self._matrix = np.stack(self._rows)
            self._matrix.setflags(write=False)
            return self._matrix

    def _next(self) -> Vector:
        following = self._asked[0]
        if not isinstance(following, _Pending):
            return following
        try:
            return self._scope.result_of(following.future)
        except TimeoutError:
            raise _late() from None

    def close(self) -> None:
        """Take back what was not read."""
        with self._turn:
            self._is_closed = True
            self._give_up([asked for asked in self._asked if isinstance(asked, _Pending)])
            self._asked.clear()


def _prompts(question: Question) -> Iterator[tuple[str, str]]:
    """Each label and one prompt of it, made as they are needed: all of them can be 100,000."""
    return ((label, fill(template, label)) for label in question.candidate_labels for template in question.templates)


def _mean(vectors: Sequence[Vector]) -> Vector:
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _late() -> JobFailed:
    return JobFailed("deadline_exceeded", "the labels were not embedded within the job's time.")
