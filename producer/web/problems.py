"""What the HTTP API answers when it refuses a request or fails: problem details (RFC 9457) with stable codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer.web.replies import Reply

MEDIA_TYPE: Final = "application/problem+json"
#: The type that draft-ietf-httpapi-ratelimit-headers registers for a limit that was reached.
QUOTA_TYPE: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True, slots=True)
class ProblemCode:
    """A stable code of the API: its HTTP status, a title, and what the caller should do."""

    status: int
    title: str
    advice: str


CODES: Final[dict[str, ProblemCode]] = {
    "invalid_request": ProblemCode(400, "the request is malformed", "send exactly one Host header"),
    "invalid_json": ProblemCode(400, "the body is not strict JSON", "send one JSON object in UTF-8, each name once"),
    "unauthorized": ProblemCode(401, "the API key is missing or wrong", "send Authorization: Bearer with a valid key"),
    "forbidden": ProblemCode(403, "this key may not do that", "use another key, or ask the operator"),
    "cross_origin": ProblemCode(403, "the request comes from another site", "ask the operator to allow the origin"),
    "not_found": ProblemCode(404, "there is no such page", "check the path"),
    "job_not_found": ProblemCode(404, "there is no such job", "check the id; an answer is kept only for a while"),
    "method_not_allowed": ProblemCode(405, "the method is not allowed here", "use a method that Allow names"),
    "job_not_finished": ProblemCode(409, "the job has no answer yet", "cancel it first, or wait for its answer"),
    "job_deleted": ProblemCode(410, "the job was deleted", "submit a new job"),
    "body_too_large": ProblemCode(413, "the body is too large", "send a smaller body, or none where none is expected"),
    "unsupported_media_type": ProblemCode(
        415, "the body has an unsupported type", "send application/json without Content-Encoding"
    ),
    "host_not_served": ProblemCode(421, "this host is not served here", "ask the operator to name it in the settings"),
    "invalid_job": ProblemCode(422, "the job is invalid", "correct the members that errors names"),
    "invalid_idempotency_key": ProblemCode(
        422, "the Idempotency-Key is invalid", "send one of 1 to 255 visible ASCII characters"
    ),
    "idempotency_key_reused": ProblemCode(
        422, "the Idempotency-Key was used with another body", "repeat the same body, or use another key"
    ),
    "too_many_ids": ProblemCode(422, "the number of ids is wrong", "ask for 1 to 100 jobs at once"),
    "queue_full": ProblemCode(429, "the queue is full", "try again after the time that Retry-After says"),
    "rate_limited": ProblemCode(429, "the key sent too many requests", "wait as long as Retry-After says"),
    "quota_exceeded": ProblemCode(429, "the key has too many unanswered jobs", "wait until some of them are answered"),
    "too_many_streams": ProblemCode(429, "too many streams are open", "close some, or ask for the jobs instead"),
    "internal": ProblemCode(500, "the server failed", "report it with the request id"),
    "unavailable": ProblemCode(503, "the service cannot be used now", "try again after the time that Retry-After says"),
    "shutting_down": ProblemCode(503, "this server is ending", "try again"),
}


class Problem(Exception):
    """A refusal or failure of one request.

    Attributes:
        detail: one sentence; nothing of the request but labels and templates.
        errors: for an invalid body, pairs of a JSON pointer and a sentence.
        headers: headers of the response.
        members: further members of the object.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def response(self, request_id: str, root_path: str) -> Reply:
        """Return the response."""
        known = CODES[self.code]
        content: dict[str, Any] = {
            "type": f"{root_path}/errors/{self.code}",
            "title": known.title,
            "status": known.status,
            "detail": self.detail or f"{known.title}; {known.advice}.",
            "instance": request_id,
            "code": self.code,
        }
        if self.errors:
            content["errors"] = [{"pointer": pointer, "detail": sentence} for pointer, sentence in self.errors]
        content |= self.members
        return Reply(content, known.status, self.headers, media_type=MEDIA_TYPE)
