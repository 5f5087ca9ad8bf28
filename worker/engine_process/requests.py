"""A front's requests to its engine, kept until they are answered."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from producer.errors import JobFailed
from worker.engine_process import frames
from worker.engine_process.memory import described, layout
from worker.model.interface import Prepared


class Request:
    """One request, with the future of its result.

    Attributes:
        number: the number that `RemoteEngine` assigns to the submitted request.
        is_sent: whether it was sent to the current engine.
        deaths: the number of engines that died while it was on their device, or while they may have counted its tokens.
    """

    #: A request fails after this many deaths of engines. For an image or a prompt, only deaths while it was in a batch
    #: count; after the first such death it runs alone, so it must have caused the second.
    max_deaths = 2
    #: How error messages name the request's item.
    subject = "a label"

    def __init__(self) -> None:
        self.number = 0
        self.is_sent = False
        self.deaths = 0
        self.future: Future[Any] = Future()

    def result_in(self, payload: bytes) -> Any:
        """Return the result in the payload of a reply, by default a `BatchResult` whose output is an embedding."""
        return frames.vector_in(payload)

    def resolve(self, kind: int, payload: bytes) -> None:
        """Resolve the future with the engine's reply."""
        if not self.future.set_running_or_notify_cancel():
            return
        if kind == frames.FAILED:
            code, message = frames.from_json(payload)
            self.future.set_exception(JobFailed(code, message))
        elif kind == frames.DROPPED:
            self.future.set_exception(JobFailed("deadline_exceeded", "the engine dropped this request."))
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
    """A request for one prompt's embedding."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self.prompt = prompt


class CountRequest(Request):
    """A request for the number of tokens of each of some prompts."""

    #: Whether an engine died while it counted tokens is unknown, so this request fails after one more death.
    max_deaths = 3

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        self.prompts = prompts

    def result_in(self, payload: bytes) -> Any:
        """Return the number of tokens of each prompt."""
        return frames.from_json(payload)


class ImageRequest(Request):
    """A request for one image's embedding.

    Attributes:
        rank: the index of the image's queue in `producer.contract.names.QUEUES`.
        description: the names, dtypes and shapes of its arrays; see `worker.engine_process.memory.described`.
        layout: the positions of its arrays in a slot.
    """

    subject = "this image"

    def __init__(self, prepared: Prepared, rank: int) -> None:
        super().__init__()
        self.arrays = prepared.arrays
        self.rank = rank
        self.description = described(prepared.arrays)
        self.layout = layout(self.description)
