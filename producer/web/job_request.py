"""Turn the body of ``POST /v1/jobs`` into the arguments of a job, or into errors with pointers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from producer.contract.image_url import check_url_shape
from producer.contract.job import Question, shown_number
from producer.contract.labels import DEFAULT_TEMPLATE, check_candidate_labels, check_templates
from producer.contract.names import QUEUES, Queue
from producer.contract.request_id import REQUEST_ID_HEADER
from producer.contract.spelling import MESSAGE
from producer.errors import InvalidJob
from producer.messages.envelope import canonical_json
from producer.messages.submission import MessageWriter, Submission, check_expires_in
from producer.web.problems import Problem

#: Bounds that are tighter than the core's: what JSON clients of all languages can represent, or what anyone needs.
MAX_TOP_K: Final = 2**31 - 1
MAX_TIMEOUT_S: Final = 3600
MAX_EXPIRES_IN_S: Final = 604_800
MEMBERS: Final = ("image", "candidate_labels", "hypothesis_template", "top_k", "timeout", "expires_in", "queue")
REQUIRED: Final = ("image", "candidate_labels")
#: A longer name of a member is not repeated.
_LONGEST_NAME: Final = 50
_INDEX: Final = re.compile(r"[a-z_]+\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class JobBody:
    """The checked body of a request for one job."""

    image: str = field(repr=False)
    candidate_labels: list[str]
    hypothesis_template: list[str]
    top_k: int | None
    timeout: float | None
    expires_in: float | None
    queue: Queue

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> JobBody:
        """Check each member; raises a `Problem` with an error for each wrong one."""
        errors = [
            (f"/{_pointer(name)}", f"this member is unknown; known are {', '.join(MEMBERS)}.")
            for name in body
            if name not in MEMBERS
        ]
        errors += [("", f"the argument {name} is missing.") for name in REQUIRED if name not in body]
        values: dict[str, Any] = {}
        for name, check in _CHECKS.items():
            if name not in body and name in REQUIRED:
                continue
            try:
                values[name] = check(body[name]) if name in body else _DEFAULTS[name]
            except InvalidJob as error:
                found = _INDEX.match(str(error))
                errors.append((f"/{name}/{found[1]}" if found else f"/{name}", str(error)))
        if errors:
            raise Problem("invalid_job", errors[0][1], errors=errors)
        return cls(**values)

    @property
    def digest(self) -> str:
        """The digest of all members, by which a repeated request is recognised."""
        members = {name: getattr(self, name) for name in MEMBERS}
        return hashlib.sha256(canonical_json(members).encode()).hexdigest()

    def submission(self, writer: MessageWriter, job_id: str, request_id: str) -> Submission:
        """Return the job's message, which also names the request."""
        single = writer.single(
            self.image,
            self.candidate_labels,
            hypothesis_template=self.hypothesis_template,
            top_k=self.top_k,
            download_timeout=self.timeout,
            job_id=job_id,
            expires_in=self.expires_in,
            queue=self.queue,
            spelling=MESSAGE,
        )
        return replace(single, message=single.message.with_header(REQUEST_ID_HEADER, request_id))


def _pointer(name: str) -> str:
    """Return a member's name as a token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")[:_LONGEST_NAME]


def _image(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidJob(f"image must be a URL string, not {MESSAGE.kind(value)}.")
    return check_url_shape(value, MESSAGE.image)


def _top_k(value: object) -> int | None:
    # To JSON Schema, 3.0 is an integer.
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    top_k = Question.checked(["any"], top_k=whole, spelling=MESSAGE).top_k
    if top_k is not None and top_k > MAX_TOP_K:
        raise InvalidJob(f"top_k must be at most {MAX_TOP_K:,}, not {shown_number(top_k)}.")
    return top_k


def _timeout(value: object) -> float | None:
    timeout = Question.checked(["any"], download_timeout=value, spelling=MESSAGE).download_timeout
    if timeout is not None and timeout > MAX_TIMEOUT_S:
        raise InvalidJob(f"timeout must be at most {MAX_TIMEOUT_S:,} seconds, not {timeout}.")
    return timeout


def _expires_in(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidJob(f"expires_in must be a number of seconds or null, not {MESSAGE.kind(value)}.")
    if not 0 < value <= MAX_EXPIRES_IN_S:
        raise InvalidJob(
            f"expires_in must be more than 0 and at most {MAX_EXPIRES_IN_S:,} s, not {shown_number(value)}."
        )
    return check_expires_in(value)


def _queue(value: object) -> Queue:
    for queue in QUEUES:
        if value == queue:
            return queue
    raise InvalidJob(f"queue must be one of {', '.join(QUEUES)}.")


_CHECKS: Final[Mapping[str, Callable[[object], Any]]] = {
    "image": _image,
    "candidate_labels": lambda value: check_candidate_labels(value, MESSAGE),
    "hypothesis_template": lambda value: check_templates(value, MESSAGE),
    "top_k": _top_k,
    "timeout": _timeout,
    "expires_in": _expires_in,
    "queue": _queue,
}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "hypothesis_template": [DEFAULT_TEMPLATE],
    "top_k": None,
    "timeout": None,
    "expires_in": None,
    "queue": "default",
}
