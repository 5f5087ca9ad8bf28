"""Collects the vectors of a question's prompts in order; a bounded number of prompts is requested ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from producer.contract.job import Question
from producer.contract.labels import fill
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.engine.batch_queue import BatchResult
from worker.engine.failures import failure_of

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
#: Waits for a question's matrix within the scope of one of its images.
ReadMatrix = Callable[[CancelScope], Matrix]
#: A prompt's text; and the mark of the suspect that requested the prompt, or None if no suspect must wait for a turn.
Key = tuple[str, str | None]

#: At most this many prompts of one question wait for the device at a time, which is one batch for each of four threads
#: on a CPU. With more, other jobs' new labels would wait longer; with fewer, the device would wait for requests.
MAX_REQUESTED: Final = 512


@dataclass(slots=True, eq=False)
class Pending:
    """A prompt that the text tower has not embedded yet, and the number of questions that need it."""

    key: Key
    future: Future[BatchResult[Vector]]
    questions: int = 1


class Reading:
    """Collects the vectors of a question's prompts in order, while up to `MAX_REQUESTED` further ones are requested.

    Args:
        request: requests a prompt, and returns its vector if that is cached.
        give_up: called with pending prompts that the question no longer needs.
    """

    def __init__(
        self,
        question: Question,
        scope: CancelScope,
        request: Callable[[str, CancelScope], Vector | Pending],
        give_up: Callable[[Iterable[Pending]], None],
    ) -> None:
        self._scope = scope
        self._request = request
        self._give_up = give_up
        self._prompts = prompts_of(question)
        self._templates = len(question.templates)
        self._requested: deque[Vector | Pending] = deque()
        self._of_label: list[Vector] = []
        self._rows: list[Vector] = []
        self._matrix: Matrix | None = None
        # The images of a bulk message share a reading, and the first image that needs the matrix collects it for all.
        self._turn = threading.Lock()
        self._is_closed = False

    def request_more(self) -> None:
        """Request further prompts, until the vectors of `MAX_REQUESTED` prompts are requested and not collected yet."""
        for _, prompt in islice(self._prompts, MAX_REQUESTED - len(self._requested)):
            self._requested.append(self._request(prompt, self._scope))

    def matrix(self, scope: CancelScope) -> Matrix:
        """Wait for all vectors and return the matrix; see `LabelCache.request`."""
        if not self._turn.acquire(timeout=min(scope.left_s, threading.TIMEOUT_MAX)):
            scope.check()
            raise too_late()
        try:
            if self._matrix is not None:
                return self._matrix
            if self._is_closed:
                raise Cancelled  # the job of this image has ended
            while self._requested:
                if (vector := self._next(scope)) is None:
                    continue
                self._of_label.append(vector)
                self._requested.popleft()
                self.request_more()
                if len(self._of_label) == self._templates:
                    self._rows.append(mean_of(self._of_label))
                    self._of_label.clear()
            self._matrix = np.stack(self._rows)
            self._matrix.setflags(write=False)
            return self._matrix
        finally:
            self._turn.release()

    def _next(self, scope: CancelScope) -> Vector | None:
        """Wait for the first requested vector; return None if the prompt had to be requested again."""
        following = self._requested[0]
        if not isinstance(following, Pending):
            return following
        try:
            return scope.result_of(following.future).output
        except TimeoutError:
            raise too_late() from None
        except Cancelled:
            raise
        except CancelledError:
            prompt = following.key[0]
        except Exception as error:
            raise failure_of(error, "a label") from None
        self._requested[0] = self._request(prompt, self._scope)
        return None

    def close(self) -> None:
        """Give up the prompts that are still pending."""
        with self._turn:
            self._is_closed = True
            self._give_up([requested for requested in self._requested if isinstance(requested, Pending)])
            self._requested.clear()


def prompts_of(question: Question) -> Iterator[tuple[str, str]]:
    """Yield each label with each of its prompts; prompts are created lazily, because there may be 100,000."""
    return ((label, fill(template, label)) for label in question.candidate_labels for template in question.templates)


def mean_of(vectors: Sequence[Vector]) -> Vector:
    """Return the unit vector of one label, (d,), from the unit vectors of its prompts, one for each template."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def too_late() -> JobFailed:
    """Return the failure of a job whose labels were not embedded in time."""
    return JobFailed("deadline_exceeded", "the labels were not embedded within the job's time.")
