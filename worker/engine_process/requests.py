"""What a front asks its engine, until it is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Any, Final

from producer.errors import JobFailed
from worker.engine_process import frames
from worker.engine_process.memory import described, layout
from worker.model.interface import Prepared

#: Engines that may die over one request. An image or a prompt counts when it was in a batch, and rides alone the second
#: time, so that then it did it. Whether tokens were being counted is not known, so one more death has to agree.
DEATHS_ON_THE_DEVICE: Final = 2
DEATHS_WHILE_ASKED: Final = 3


class Request(ABC):
    """One request; its future is done when its answer is there or somebody has cancelled it.

    Attributes:
        number: given when it is asked.
        is_sent: whether the present engine knows of it.
        deaths: engines that died while they had it on the device, or were asked to count.
    """

    max_deaths = DEATHS_ON_THE_DEVICE
    #: How messages name it.
    subject = "a label"

    def __init__(self) -> None:
        self.number = 0
        self.is_sent = False
        self.deaths = 0
        self.future: Future[Any] = Future()

    @abstractmethod
    def result_in(self, payload: bytes) -> Any:
        """What an answer says."""

    def resolve(self, kind: int, payload: bytes) -> None:
        """The engine has answered."""
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
        """There will be no answer."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(failure)

    def give_up(self) -> None:
        """It is not asked again: too many engines died of it, as it seems."""
        self.fail(
            JobFailed("model_error", f"{self.deaths} engines died while they worked on {self.subject}; report it.")
        )


class PromptRequest(Request):
    """One prompt's embedding."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self.prompt = prompt

    def result_in(self, payload: bytes) -> Any:
        """(d,)."""
        return frames.ride_in(payload).output


class CountRequest(Request):
    """The tokens of some prompts."""

    max_deaths = DEATHS_WHILE_ASKED

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        self.prompts = prompts

    def result_in(self, payload: bytes) -> Any:
        """One number a prompt."""
        return frames.from_json(payload)


class ImageRequest(Request):
    """One image's ride.

    Attributes:
        rank: its queue, by its place in `producer.contract.QUEUES`.
        description: of its arrays, see `worker.engine_process.memory`.
        layout: how they lie in a slot.
    """

    subject = "this image"

    def __init__(self, prepared: Prepared, rank: int) -> None:
        super().__init__()
        self.arrays = prepared.arrays
        self.rank = rank
        self.description = described(prepared.arrays)
        self.layout = layout(self.description)

    def result_in(self, payload: bytes) -> Any:
        """A `Ride`."""
        return frames.ride_in(payload)
