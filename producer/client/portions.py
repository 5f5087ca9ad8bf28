"""A stream of images cut into messages, and the answers taken apart again. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Self

from producer.contract import (
    MAX_IMAGES_PER_MESSAGE,
    MAX_SCORES_PER_MESSAGE,
    Outcome,
    Question,
    Queue,
    check_url_shape,
    shown_number,
)
from producer.errors import InvalidJob, JobFailed
from producer.messages.forms import QuestionJson
from producer.messages.submission import MessageWriter, Submission, check_expires_in, check_queue
from producer.operations.answers import Answer

#: A message that is purged again and again, or whose answer lives too short to be read, is given up in the end.
MAX_LOSSES: Final = 3


@dataclass(frozen=True, slots=True)
class BulkOutcome(Outcome):
    """An `Outcome` and the position of its image in what was given, from 0."""

    index: int = 0


@dataclass(frozen=True, slots=True)
class BulkMessage:
    """Consecutive images that travel together.

    Attributes:
        refusals: those, by offset, that never leave.
        losses: how often the message was lost before and is sent again.
    """

    start: int
    images: list[str] = field(repr=False)
    refusals: dict[int, JobFailed]
    submission: Submission | None
    losses: int = 0

    @property
    def sent_images(self) -> list[str]:
        """Those that leave."""
        return [image for offset, image in enumerate(self.images) if offset not in self.refusals]

    def is_lost(self, answer: Answer | None) -> bool:
        """Whether this answer says that the message was purged or lost, and it should be sent again."""
        return answer is not None and answer.state == "unknown" and self.losses < MAX_LOSSES

    def outcomes(self, answer: Answer | None) -> list[BulkOutcome]:
        """One outcome for each image, in order; the whole message's failure is each image's own."""
        sent = self.sent_images
        results: Iterator[Outcome] = iter(())
        if answer is not None:
            failure = _failure(answer)
            results = iter(
                answer.outcomes(sent) if failure is None else [Outcome(image, error=failure) for image in sent]
            )
        outcomes = []
        for offset, image in enumerate(self.images):
            refusal = self.refusals.get(offset)
            outcome = Outcome(image, error=refusal) if refusal is not None else next(results)
            outcomes.append(BulkOutcome(image, outcome.result, outcome.error, index=self.start + offset))
        return outcomes


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """The arguments of a stream, checked before its first image is read."""

    desk: MessageWriter
    form: QuestionJson
    expires_in: float | None
    queue: Queue
    images_per_message: int
    in_flight: int
    ordered: bool

    @classmethod
    def checked(
        cls,
        desk: MessageWriter,
        labels: object,
        *,
        hypothesis_template: object,
        top_k: object,
        timeout: object,
        expires_in: float | None,
        queue: Queue,
        images_per_message: int,
        in_flight: int,
        ordered: bool,
    ) -> Self:
        """Check each argument; raises `InvalidJob`."""
        question = Question.checked(labels, hypothesis_template, top_k, timeout)
        _check_whole("images_per_message", images_per_message)
        if not 1 <= images_per_message <= MAX_IMAGES_PER_MESSAGE:
            raise InvalidJob(
                f"images_per_message must be 1 to {MAX_IMAGES_PER_MESSAGE}, not {shown_number(images_per_message)}."
            )
        _check_whole("in_flight", in_flight)
        if in_flight < 1:
            raise InvalidJob(f"in_flight must be 1 or more messages, not {shown_number(in_flight)}.")
        if expires_in is not None:
            check_expires_in(expires_in)
        fitting = MAX_SCORES_PER_MESSAGE // question.kept_scores
        form = QuestionJson.blank(question, "images")
        return cls(desk, form, expires_in, check_queue(queue), min(images_per_message, fitting), in_flight, ordered)

    def portions(self, urls: Iterable[str]) -> Iterator[BulkMessage]:
        """Cut the images into messages, reading no further than asked."""
        source = iter(urls)
        start = 0
        while images := list(islice(source, self.images_per_message)):
            yield self.portion(start, images)
            start += len(images)

    def portion(self, start: int, images: list[str]) -> BulkMessage:
        """The message of these images, without those whose URL cannot be one."""
        refusals: dict[int, JobFailed] = {}
        for offset, image in enumerate(images):
            try:
                check_url_shape(image)
            except InvalidJob as error:
                refusals[offset] = JobFailed(_refusal_code(image), str(error))
        portion = BulkMessage(start, [str(image) for image in images], refusals, None)
        return replace(portion, submission=self._written(portion)) if portion.sent_images else portion

    def again(self, portion: BulkMessage) -> BulkMessage:
        """The same portion in a new message under its old id; its ``expires_in`` begins anew."""
        return replace(portion, submission=self._written(portion), losses=portion.losses + 1)

    def _written(self, portion: BulkMessage) -> Submission:
        job_id = None if portion.submission is None else portion.submission.job_id
        return self.desk.bulk(
            portion.sent_images, self.form, expires_in=self.expires_in, queue=self.queue, job_id=job_id
        )


def check_many(urls: object) -> None:
    """Refuse one URL where many are asked for; it would be taken for as many as it has characters."""
    if isinstance(urls, str | bytes):
        raise InvalidJob("urls must be a list or another iterable of URLs, not one URL; put it into a list.")


def _check_whole(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidJob(f"{name} must be a whole number, not {type(number).__name__}.")


def _failure(answer: Answer) -> JobFailed | None:
    """Why a message has no outcomes, in the words of one image's failure."""
    match answer.state:
        case "expired":
            return JobFailed("expired", "the message waited longer than its expires_in.", True)
        case "cancelled":
            return JobFailed("cancelled", "the message was cancelled.", False)
        case "unknown":
            return JobFailed("deadline_exceeded", "Redis lost the message; send the image again.", True)
    return answer.error if isinstance(answer.error, JobFailed) else None


def _refusal_code(image: object) -> str:
    scheme = image.partition(":")[0].lower() if isinstance(image, str) and ":" in image else ""
    looks_like_one = scheme.isascii() and scheme[:1].isalpha() and scheme.replace("+", "").replace("-", "").isalnum()
    return "scheme_not_allowed" if looks_like_one and scheme not in ("http", "https") else "invalid_url"
