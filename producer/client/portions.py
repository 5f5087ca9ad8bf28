"""Split a stream of images into messages, and the messages' answers into outcomes; this module sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Self, Unpack

from producer.contract.image_url import check_url_shape
from producer.contract.job import (
    MAX_IMAGES_PER_MESSAGE,
    MAX_SCORES_PER_MESSAGE,
    Question,
    shown_number,
)
from producer.contract.names import Queue
from producer.contract.result import Outcome
from producer.contract.spelling import CALL
from producer.errors import InvalidJob, JobFailed
from producer.messages.forms import QuestionJson
from producer.messages.options import QuestionOptions, refuse_unknown
from producer.messages.submission import MessageWriter, Submission, check_expires_in, check_queue
from producer.operations.answers import Answer

#: By default, `classify_many` puts this many images into a message, and keeps this many messages in flight.
IMAGES_PER_MESSAGE: Final = 32
IN_FLIGHT: Final = 64
#: The client sends a lost message again at most this many times, because a message may be purged repeatedly, or its
#: answer may expire again and again before the client reads it.
MAX_LOSSES: Final = 3


@dataclass(frozen=True, slots=True)
class BulkOutcome(Outcome):
    """An `Outcome` with the index of its image among the caller's URLs, from 0."""

    index: int = 0


@dataclass(frozen=True, slots=True)
class BulkMessage:
    """Consecutive images that share one message.

    Attributes:
        refusals: the error of each image that the client refuses to send, by the image's offset.
        losses: how many times the message was lost and sent again.
    """

    start: int
    images: list[str] = field(repr=False)
    refusals: dict[int, JobFailed]
    submission: Submission | None
    losses: int = 0

    @property
    def sent_images(self) -> list[str]:
        """The images that are sent to a worker."""
        return [image for offset, image in enumerate(self.images) if offset not in self.refusals]

    def is_lost(self, answer: Answer | None) -> bool:
        """Return whether this answer means that the message was purged or lost, and should be sent again."""
        return answer is not None and answer.state == "unknown" and self.losses < MAX_LOSSES

    def outcomes(self, answer: Answer | None) -> list[BulkOutcome]:
        """Return one outcome per image, in order; a failure of the whole message counts for each image."""
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
    """The arguments of a stream, which are checked before its first image is read."""

    writer: MessageWriter
    question_json: QuestionJson
    expires_in: float | None
    queue: Queue
    images_per_message: int
    in_flight: int
    ordered: bool

    @classmethod
    def checked(
        cls,
        writer: MessageWriter,
        labels: object,
        *,
        expires_in: float | None = None,
        queue: Queue = "bulk",
        images_per_message: int = IMAGES_PER_MESSAGE,
        in_flight: int = IN_FLIGHT,
        ordered: bool = False,
        **options: Unpack[QuestionOptions],
    ) -> Self:
        """Check each argument; raises `InvalidJob`."""
        refuse_unknown("classify_many", options)
        question = Question.checked(labels, **options, spelling=CALL)
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
        question_json = QuestionJson.blank(question, "images")
        return cls(
            writer, question_json, expires_in, check_queue(queue), min(images_per_message, fitting), in_flight, ordered
        )

    def messages(self, urls: Iterable[str]) -> Iterator[BulkMessage]:
        """Split the images into messages; each message reads only its own images from the source."""
        source = iter(urls)
        start = 0
        while images := list(islice(source, self.images_per_message)):
            yield self.message(start, images)
            start += len(images)

    def message(self, start: int, images: list[str]) -> BulkMessage:
        """Return the message of these images; it omits those whose URL is invalid."""
        refusals: dict[int, JobFailed] = {}
        for offset, image in enumerate(images):
            try:
                check_url_shape(image)
            except InvalidJob as error:
                refusals[offset] = JobFailed(_refusal_code(image), str(error))
        message = BulkMessage(start, [str(image) for image in images], refusals, None)
        return replace(message, submission=self._written(message)) if message.sent_images else message

    def again(self, message: BulkMessage) -> BulkMessage:
        """Write a lost message again under the same id; its ``expires_in`` starts anew."""
        return replace(message, submission=self._written(message), losses=message.losses + 1)

    def _written(self, message: BulkMessage) -> Submission:
        job_id = None if message.submission is None else message.submission.job_id
        return self.writer.bulk(
            message.sent_images, self.question_json, expires_in=self.expires_in, queue=self.queue, job_id=job_id
        )


def check_many(urls: object, kinds: tuple[type, ...] = (Iterable,)) -> None:
    """Raise `InvalidJob` unless ``urls`` is an iterable; refuse a string too, whose characters would count as URLs."""
    if isinstance(urls, str | bytes):
        raise InvalidJob("urls must be a list or another iterable of URLs, not a single URL; put it into a list.")
    if not isinstance(urls, kinds) and not hasattr(urls, "__getitem__"):
        raise InvalidJob(f"urls must be a list or another iterable of URLs, not {CALL.kind(urls)}.")


def _check_whole(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidJob(f"{name} must be a whole number, not {type(number).__name__}.")


def _failure(answer: Answer) -> JobFailed | None:
    """Return the error that each image of a message without outcomes gets; None if the message has outcomes."""
    match answer.state:
        case "expired":
            return JobFailed("expired", "the message waited longer than its expires_in.", True)
        case "cancelled":
            return JobFailed("cancelled", "the message was cancelled.", False)
        case "unknown":
            return JobFailed("deadline_exceeded", "the message was purged or lost; send the image again.", True)
    return answer.error if isinstance(answer.error, JobFailed) else None


def _refusal_code(image: object) -> str:
    scheme = image.partition(":")[0].lower() if isinstance(image, str) and ":" in image else ""
    looks_like_one = scheme.isascii() and scheme[:1].isalpha() and scheme.replace("+", "").replace("-", "").isalnum()
    return "scheme_not_allowed" if looks_like_one and scheme not in ("http", "https", "upload") else "invalid_url"
