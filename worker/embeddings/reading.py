"""Reads the vectors of a question's prompts in order, with a bounded number of prompts requested ahead."""

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
#: A prompt, and the mark of the suspect that requested it.
Key = tuple[str, str | None]

#: At most this many prompts of one question wait for the device at a time, a batch for each of a CPU's four threads.
#: With more, other jobs' new labels would wait behind them; with fewer, the device would wait for requests.
MAX_ASKED: Final = 512


@dataclass(slots=True, eq=False)
class Pending:
    """A prompt that the text tower has not embedded yet, and the number of questions that want it."""

    key: Key
    future: Future[BatchResult[Vector]]
    wanted_by: int = 1


class Reading:
    """Reads a question's prompts in order while up to `MAX_ASKED` are requested.

    Args:
        want: requests a prompt.
        give_up: returns shares in prompts.
    """

    def __init__(
        self,
        question: Question,
        scope: CancelScope,
        want: Callable[[str, CancelScope], Vector | Pending],
        give_up: Callable[[Iterable[Pending]], None],
    ) -> None:
        self._scope = scope
        self._want = want
        self._give_up = give_up
        self._prompts = prompts_of(question)
        self._templates = len(question.templates)
        self._asked: deque[Vector | Pending] = deque()
        self._label: list[Vector] = []
        self._rows: list[Vector] = []
        self._matrix: Matrix | None = None
        # The images of a bulk message share a reading, and the first one reads for all.
        self._turn = threading.Lock()
        self._is_closed = False

    def ask(self) -> None:
        """Request prompts up to `MAX_ASKED`."""
        for _, prompt in islice(self._prompts, MAX_ASKED - len(self._asked)):
            self._asked.append(self._want(prompt, self._scope))

    def matrix(self) -> Matrix:
        """Wait for all rows; see `LabelCache.request`."""
        with self._turn:
            if self._matrix is not None:
                return self._matrix
            if self._is_closed:
                raise Cancelled  # this image's message has ended
            while self._asked:
                if (vector := self._next()) is None:
                    continue
                self._label.append(vector)
                self._asked.popleft()
                self.ask()
                if len(self._label) == self._templates:
                    self._rows.append(_mean(self._label))
                    self._label.clear()
            self._matrix = np.stack(self._rows)
            self._matrix.setflags(write=False)
            return self._matrix

    def _next(self) -> Vector | None:
        """Wait for the first requested prompt; None if another job embedded it first and it was requested again."""
        following = self._asked[0]
        if not isinstance(following, Pending):
            return following
        try:
            return self._scope.result_of(following.future).output
        except TimeoutError:
            raise too_late() from None
        except Cancelled:
            raise
        except CancelledError:
            prompt = following.key[0]
        except Exception as error:
            raise failure_of(error, "a label") from None
        self._asked[0] = self._want(prompt, self._scope)
        return None

    def close(self) -> None:
        """Return the shares in unread prompts."""
        with self._turn:
            self._is_closed = True
            self._give_up([asked for asked in self._asked if isinstance(asked, Pending)])
            self._asked.clear()


def prompts_of(question: Question) -> Iterator[tuple[str, str]]:
    """Yield each label with each of its prompts, created lazily, since there may be 100,000."""
    return ((label, fill(template, label)) for label in question.candidate_labels for template in question.templates)


def _mean(vectors: Sequence[Vector]) -> Vector:
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def too_late() -> JobFailed:
    """Return the failure of a job whose labels took too long."""
    return JobFailed("deadline_exceeded", "the labels were not embedded within the job's time.")
