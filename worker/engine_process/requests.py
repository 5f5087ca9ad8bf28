"""A front's requests to its engine, kept until they are answered."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from producer.errors import JobFailed
from worker.engine_process import frames
from worker.engine_process.memory import described, layout
from worker.model.interface import Prepared

#: A request is given up after this many engines died over it. Images and prompts count deaths while they were in a
#: batch, and run alone the second time, so a second death is theirs. Whether an engine died while counting tokens is
#: unknown, so counting needs one more death.
DEATHS_ON_THE_DEVICE: Final = 2
DEATHS_WHILE_COUNTING: Final = 3


class Request:
    """One request, with a future for its answer.

    Attributes:
        number: assigned by `RemoteEngine` when it is submitted.
        is_sent: whether the current engine has received it.
        deaths: engines that died while it was on the device, or while they may have been counting its tokens.
    """

    max_deaths = DEATHS_ON_THE_DEVICE
    #: Error messages call the request's item this.
    subject = "a label"

    def __init__(self) -> None:
        self.number = 0
        self.is_sent = False
        self.deaths = 0
        self.future: Future[Any] = Future()

    def result_in(self, payload: bytes) -> Any:
        """Parse the payload of an answer; here to a `BatchResult` whose output is an embedding."""
        return frames.vector_in(payload)

    def resolve(self, kind: int, payload: bytes) -> None:
        """Resolve the future with the engine's answer."""
        if not self.future.set_running_or_notify_cancel():
            return
        if kind == frames.FAILED:
            code, message = frames.from_json(payload)
            self.future.set_exception(JobFailed(code, message))
        elif kind == frames.DROPPED:
            self.future.set_exception(JobFailed("deadline_exceeded", "the engine dropped it."))
        else:
            self.future.set_result(self.result_in(payload))

    def fail(self, failure: JobFailed) -> None:
        """Resolve the future with this failure."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(failure)

    def give_up(self) -> None:
        """Fail the request instead of sending it to another engine."""
        self.fail(JobFailed("model_error", f"{self.deaths} engines died while working on {self.subject}; report it."))


class PromptRequest(Request):
    """One prompt's embedding."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self.prompt = prompt


class CountRequest(Request):
    """The tokens of some prompts."""

    max_deaths = DEATHS_WHILE_COUNTING

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        self.prompts = prompts

    def result_in(self, payload: bytes) -> Any:
        """Return the number of tokens of each prompt."""
        return frames.from_json(payload)


class ImageRequest(Request):
    """One image's embedding.

    Attributes:
        rank: its queue's index in `producer.contract.names.QUEUES`.
        description: its arrays, as `worker.engine_process.memory.described` returns them.
        layout: their positions in a slot.
    """

    subject = "this image"

    def __init__(self, prepared: Prepared, rank: int) -> None:
        super().__init__()
        self.arrays = prepared.arrays
        self.rank = rank
        self.description = described(prepared.arrays)
        self.layout = layout(self.description)
