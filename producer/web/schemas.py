"""The schemas of requests and responses in ``/openapi.json``.

The schema of a job is exact: what it accepts, the API accepts, except where JSON Schema cannot say it (labels that
differ only in their Unicode form, the bytes of all labels together, the length of a URL once it is percent-encoded).
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from producer.contract.image_url import MAX_URL_CHARACTERS
from producer.contract.labels import MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_TEMPLATE_CHARACTERS, MAX_TEMPLATES
from producer.contract.names import QUEUES
from producer.web.ids import MAX_IDS
from producer.web.job_request import MAX_EXPIRES_IN_S, MAX_TIMEOUT_S, MAX_TOP_K, REQUIRED

#: The end of the text in every dialect of regular expressions: ``$`` also matches before a last newline in Python's.
_END: Final = r"(?![\s\S])"
#: `producer.contract.labels` has the same sets of characters; a test compares both on many texts.
_INVISIBLE: Final = (
    "\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u206f"
    "\\u00ad\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u200b\\u2060-\\u2065\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
)
_FLAG: Final = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
_CHARACTER: Final = f"(?:{_FLAG}|[^{_INVISIBLE}\\u180e]|(?<=[\\u1820-\\u18aa])\\u180e)"
_BLANK: Final = (
    "[\\s\\u001c-\\u001f\\u0085\\u2800\\u200c\\u200d\\u180b-\\u180d\\u180f\\ufe00-\\ufe0f\U000e0100-\U000e01ef]"
)
_NOT_BLANK: Final = f"(?!{_BLANK}*{_END})"
LABEL_PATTERN: Final = f"^{_NOT_BLANK}{_CHARACTER}*{_END}"
TEMPLATE_PATTERN: Final = f"^(?=(?:(?!\\{{\\}})[\\s\\S])*\\{{\\}}(?:(?!\\{{\\}})[\\s\\S])*{_END}){_CHARACTER}*{_END}"
_FORBIDDEN: Final = "\\u0000-\\u0020\\u007f-\\u009f\\\\\\u2028\\u2029"
IMAGE_PATTERN: Final = f"^[hH][tT][tT][pP][sS]?://(?!:)[^/?#@{_FORBIDDEN}]+(?:[/?#][^{_FORBIDDEN}]*)?{_END}"

_LABEL: Final = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_CHARACTERS, "pattern": LABEL_PATTERN}
_TEMPLATE: Final = {"type": "string", "minLength": 2, "maxLength": MAX_TEMPLATE_CHARACTERS, "pattern": TEMPLATE_PATTERN}


def _or_null(**schema: Any) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "default": None}


JOB_REQUEST: Final[dict[str, Any]] = {
    "title": "JobRequest",
    "type": "object",
    "additionalProperties": False,
    "required": list(REQUIRED),
    "properties": {
        "image": {
            "type": "string",
            "maxLength": MAX_URL_CHARACTERS,
            "pattern": IMAGE_PATTERN,
            "description": "http(s) URL of the image",
        },
        "candidate_labels": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_LABELS,
            "uniqueItems": True,
            "items": _LABEL,
            "description": "the labels; together at most 32,768 bytes of UTF-8",
        },
        "hypothesis_template": {
            "anyOf": [_TEMPLATE, {"type": "array", "minItems": 1, "maxItems": MAX_TEMPLATES, "items": _TEMPLATE}],
            "default": "This is a photo of {}.",
            "description": "holds {} exactly once; several templates are an ensemble",
        },
        "top_k": _or_null(type="integer", minimum=1, maximum=MAX_TOP_K),
        "timeout": _or_null(type="number", exclusiveMinimum=0, maximum=MAX_TIMEOUT_S),
        "expires_in": _or_null(type="number", exclusiveMinimum=0, maximum=MAX_EXPIRES_IN_S),
        "queue": {"type": "string", "enum": list(QUEUES), "default": "default"},
    },
}
JOB_BODY: Final = {"required": True, "content": {"application/json": {"schema": JOB_REQUEST}}}
_IDS: Final = {"type": "array", "minItems": 1, "maxItems": MAX_IDS, "items": {"type": "string"}}
IDS_PARAMETER: Final = {"name": "id", "in": "query", "required": True, "schema": _IDS}
JOBS_PARAMETER: Final = {"name": "job", "in": "query", "required": True, "schema": _IDS}


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScoreObject(_Exact):
    """One label and its score."""

    label: str
    score: float = Field(ge=0, le=1)


class ImageObject(_Exact):
    """The image that was classified."""

    sha256: str
    width: int
    height: int
    format: str
    bytes: int


class TimingsObject(_Exact):
    """The duration of each stage in milliseconds."""

    queued: float | None
    fetch: float
    decode: float
    wait: float
    forward: float


class ResultObject(_Exact):
    """The result of a job that succeeded."""

    ranking: list[ScoreObject]
    model: str
    revision: str | None
    image: ImageObject
    batch_size: int
    timings_ms: TimingsObject
    attempts: int


class FailureObject(_Exact):
    """Why a job failed, and what to do."""

    code: str
    message: str
    retryable: bool
    action: str


class UrlsObject(_Exact):
    """The addresses of a job."""

    self: str
    events: str
    cancel: str


class JobObject(_Exact):
    """A job."""

    id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    queue: str | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    kept_until: str | None
    position: int | None
    estimated_wait_s: float | None
    result: ResultObject | None
    error: FailureObject | None
    batch: str | None
    webhook: dict[str, Any] | None
    urls: UrlsObject


class JobList(_Exact):
    """Jobs in the order asked, and the ids that no job of the caller has."""

    jobs: list[JobObject]
    missing: list[str]


class PointerObject(_Exact):
    """What is wrong with one member of the body."""

    pointer: str
    detail: str


class ProblemObject(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[PointerObject] = []


class LimitsObject(_Exact):
    """The limits of requests."""

    labels: int
    label_characters: int
    wait_s: int


class InfoObject(_Exact):
    """What this API is."""

    version: str | None
    auth: Literal["open", "key"]
    uploads: bool
    webhooks: bool
    limits: LimitsObject


class QueueObject(_Exact):
    """One queue."""

    waiting: int
    taken_per_s: float | None


class QueuesObject(_Exact):
    """The queues and their workers."""

    queues: dict[str, QueueObject]
    running: int
    workers: int
    backlog: int
    as_of: str


class StatusObject(_Exact):
    """The state of a process."""

    status: Literal["ok"]
