"""The errors that the client library and the command raise on purpose, as one tree, and the codes of failed jobs.

::

    NameshotError
    ├── InvalidJob           an argument of the job is invalid; the client did not send the job
    ├── SettingsError        an environment variable or argument has an invalid value
    ├── BrokerUnavailable    the client cannot reach or use Redis
    ├── QueueFull            too many messages are waiting; try again after ``retry_after_s``
    ├── JobConflict          this job id was used before, with another payload
    ├── JobNotFound          there is no such job, or its result has expired
    ├── ResultTimeout        the answer did not arrive in time; the job continues
    ├── JobFailed            the job failed; ``code`` and ``retryable`` say how
    ├── JobCancelled         the job was cancelled
    ├── JobExpired           the job waited longer than its ``expires_in``
    │   Only the command line raises these; the last three are defined in the modules that raise them:
    ├── EmbeddedError        a part of ``nameshot demo`` or ``up`` did not start or died
    ├── UsageError           an argument or option of a command is invalid
    ├── BulkOutputError      the output file of ``nameshot bulk`` cannot be used or continued
    ├── StreamFailed         a standard stream of the command is closed or fails
    └── DeadLetterError      there is no such dead letter, or it cannot be replayed

For a failed job, the worker stores a `JobFailed` with the positional arguments ``(code, message, retryable)`` in the
result backend; a client without this package reads them from ``e.args``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the error table: a stable code, whether a retry can help, what happened, and what to do."""

    code: str
    retryable: bool
    meaning: str
    advice: str

    @property
    def sentence(self) -> str:
        """The default message of a job that failed with this code."""
        return f"{self.meaning}; {self.advice}.".replace("`", "")


def _table(*rows: ErrorCode) -> dict[str, ErrorCode]:
    return {row.code: row for row in rows}


#: Every code with which a worker fails a job. For ``http_status``, the status decides whether the job is retryable.
ERROR_CODES: Final[dict[str, ErrorCode]] = _table(
    ErrorCode("invalid_job", False, "an argument is missing, unknown or malformed", "correct the argument that the message names"),
    ErrorCode("invalid_url", False, "the image URL is not a plain http(s) URL", "send an absolute URL with an ordinary host name"),
    ErrorCode("scheme_not_allowed", False, "the URL is neither http nor https", "serve the image over http or https"),
    ErrorCode("port_not_allowed", False, "the URL names a port outside `NAMESHOT_FETCH_PORTS`", "use port 80 or 443, or widen the setting; for an address that is not public, add an exception to `NAMESHOT_FETCH_ALLOW`"),
    ErrorCode("host_not_allowed", False, "the host matches none of `NAMESHOT_FETCH_HOSTS`, or a redirect leads from https to http", "use an allowed host"),
    ErrorCode("address_blocked", False, "the host is, or resolves to, an address that is not public", "use a public host, or add an exception to `NAMESHOT_FETCH_ALLOW`"),
    ErrorCode("tls_failed", False, "the server's certificate is not valid for its name", "fix the certificate"),
    ErrorCode("too_many_redirects", False, "there are more redirects than `NAMESHOT_FETCH_REDIRECTS` (3), or a loop", "send the final URL"),
    ErrorCode("bad_redirect", False, "a redirect has no usable target", "send the final URL"),
    ErrorCode("bad_response", False, "the response is malformed HTTP, or not what the worker requested", "check the server, and any compression it applies"),
    ErrorCode("http_status", False, "the server answered with a status other than 200", "check that the URL is public and has not expired"),
    ErrorCode("too_large", False, "the body is larger than `NAMESHOT_MAX_BYTES`", "send a smaller rendition"),
    ErrorCode("empty", False, "the body is empty", "check the upload"),
    ErrorCode("unsupported_format", False, "the body is not a JPEG, PNG, WebP, AVIF, GIF or (with the extra `heic`) HEIC", "convert the image, and check that the URL is not an HTML page"),
    ErrorCode("undecodable", False, "the image is damaged", "upload it again"),
    ErrorCode("too_many_pixels", False, "the image has more pixels than `NAMESHOT_MAX_PIXELS`", "send a smaller rendition"),
    ErrorCode("bad_aspect_ratio", False, "one side is more than 30 times as long as the other", "crop the image"),
    ErrorCode("model_error", False, "the model could not process this image", "report it, and attach the image"),
    ErrorCode("poisoned", False, "several workers died while they held this job", "see `nameshot dead-letters list`; `replay` runs it again"),
    ErrorCode("dns_failed", True, "the host name could not be resolved", "check the name, or try again"),
    ErrorCode("connect_failed", True, "the connection failed or broke", "try again"),
    ErrorCode("fetch_timeout", True, "the download exceeded its time limit", "try again, or raise `NAMESHOT_FETCH_TIMEOUT` and the job's download timeout"),
    ErrorCode("truncated", True, "the body ended before its declared length", "try again"),
    ErrorCode("host_unavailable", True, "downloads from this host failed too often recently, or too many are running", "try again in a minute"),
    ErrorCode("out_of_memory", True, "the device or the worker ran out of memory", "try again, or lower `NAMESHOT_MAX_BATCH`"),
    ErrorCode("deadline_exceeded", True, "the job took longer than `NAMESHOT_JOB_TIMEOUT`, without its waits for other images of its worker", "try again when the worker is less busy"),
)  # fmt: skip

#: With Request Timeout, Too Early or Too Many Requests, a server invites a retry. `is_retryable_status` adds 5xx.
RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})


def is_retryable_status(status: int) -> bool:
    """Return whether a response with this HTTP status means that the same request may succeed later."""
    return status in RETRYABLE_STATUSES or 500 <= status <= 599


class NameshotError(Exception):
    """The base class of every error that the client library and the command raise on purpose."""


class InvalidJob(NameshotError, ValueError):
    """An argument of the job is invalid, so the client did not send the job.

    The message names the argument and says what to do.
    """


class SettingsError(NameshotError, ValueError):
    """A setting has an invalid value; the message names the variable and the values it accepts."""


class BrokerUnavailable(NameshotError, ConnectionError):
    """The client cannot reach or use Redis. It sent nothing unless the message says otherwise.

    Attributes:
        may_pass: whether the server is down or busy and has not refused the command, so that a retry may succeed.
        may_have_run: whether the command was sent and no reply arrived, so that the server may have run it.
    """

    def __init__(self, message: str, *, may_pass: bool = False, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.may_have_run = may_have_run


class QueueFull(NameshotError):
    """The queue already holds the maximum number of waiting messages; the job was not queued."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class JobConflict(NameshotError):
    """The job id was used before, with another payload; choose another id, or send the same payload."""


class JobNotFound(NameshotError, LookupError):
    """There is no job with this id, or its result has expired."""


class ResultTimeout(NameshotError, TimeoutError):
    """The answer did not arrive within the caller's timeout. The job itself continues.

    Attributes:
        no_worker: whether the client found that no worker takes jobs from the job's queue; during a wait of less than a
            second, it does not check.
    """

    def __init__(self, message: str, *, no_worker: bool = False) -> None:
        super().__init__(message)
        self.no_worker = no_worker


class JobCancelled(NameshotError):
    """The job was cancelled before it had an answer."""


class JobExpired(NameshotError):
    """The job was still waiting when its ``expires_in`` ran out."""


class JobFailed(NameshotError):
    """The worker's final answer to a job that failed.

    Attributes:
        code: a stable name for programs: one of `ERROR_CODES` or, in `BulkOutcome`, ``expired`` or ``cancelled``.
        message: one sentence for people, by default that of the code; it never contains a URL, host, address or
            exception text.
        retryable: whether the same job may succeed later.
    """

    def __init__(self, code: str, message: str | None = None, retryable: bool | None = None) -> None:
        if message is None:
            message = ERROR_CODES[code].sentence
        if retryable is None:
            known = ERROR_CODES.get(code)
            retryable = known.retryable if known else False
        super().__init__(code, message, retryable)
        self.code = code
        self.message = message
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object of the three attributes."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """Have pydantic, and so FastAPI, write and read a failure as `to_dict` does."""
        from pydantic_core import core_schema

        fields = {
            "code": core_schema.typed_dict_field(core_schema.str_schema()),
            "message": core_schema.typed_dict_field(core_schema.str_schema()),
            "retryable": core_schema.typed_dict_field(core_schema.bool_schema()),
        }
        as_object = core_schema.typed_dict_schema(fields)
        read = core_schema.no_info_after_validator_function(lambda value: cls(**value), as_object)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda error: error.to_dict(), return_schema=as_object
            ),
        )


class EmbeddedError(NameshotError):
    """An embedded process could not be started, or ended unexpectedly; the message names it and says what to do."""


class UsageError(NameshotError):
    """An argument or option of a command is invalid; the command exits with status 2."""
