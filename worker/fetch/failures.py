"""The failures of a download attempt, and the translation of the network stack's exceptions into them.

Clients see every message, so no message contains a URL, host, address, path or an exception's text.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Final, Literal

import urllib3.exceptions

from producer.errors import JobFailed
from worker.fetch.head import MAX_HEAD_BYTES, MAX_LINES, TooLong
from worker.fetch.meter import Exceeded
from worker.runtime.shortages import is_shortage

#: The phase of the exchange in which an exception was raised.
Phase = Literal["connecting", "requesting", "reading"]


class FetchFailed(JobFailed):
    """A failed attempt; the fetcher retries the download or raises a plain `JobFailed` in its place.

    Attributes:
        again: whether the fetcher may try again within the same download; by default, whether the failure is retryable.
        retry_after_s: the seconds that the server's ``Retry-After`` asks for; None if the server sent none.
        of_host: whether the failure counts against the host: the host is unreachable or silent, breaks the connection
            off, or responds with 408, 425, 429 or 5xx. By default every retryable failure counts.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        retryable: bool | None = None,
        *,
        again: bool | None = None,
        retry_after_s: float | None = None,
        of_host: bool | None = None,
    ) -> None:
        super().__init__(code, message, retryable)
        self.again = self.retryable if again is None else again
        self.retry_after_s = retry_after_s
        self.of_host = self.retryable if of_host is None else of_host


#: Hostile or broken servers make the network stack raise these: OSError includes timeouts, and malformed numbers in
#: headers raise ValueError.
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError)


def unavailable(message: str) -> FetchFailed:
    """Return the failure of a download that the worker refuses to start now, to spare the host."""
    return FetchFailed("host_unavailable", message, again=False, of_host=False)


def bad_response(message: str) -> FetchFailed:
    """Return the failure for a response that HTTP or this worker does not allow."""
    return FetchFailed("bad_response", message)


def shortage() -> FetchFailed:
    """Return the failure of a download for which the worker has no means left, which says nothing about the host."""
    return FetchFailed("out_of_memory", "the worker had no memory or open files left; try again.", of_host=False)


def classify(error: BaseException, phase: Phase) -> FetchFailed:
    """Translate an exception of sockets, TLS, ``http.client`` or urllib3 into a failure."""
    if isinstance(error, FetchFailed):
        return error
    if is_shortage(error):
        return shortage()
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return FetchFailed("fetch_timeout", "the server stopped responding; try again or raise NAMESHOT_FETCH_TIMEOUT.")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _broke_off(phase)
    if isinstance(error, ssl.SSLError | ssl.CertificateError | urllib3.exceptions.SSLError) and phase != "reading":
        return FetchFailed("tls_failed", "the server's certificate or TLS configuration is not valid; correct it.")
    if isinstance(error, OSError):  # http.client.RemoteDisconnected is an OSError
        return _broke_off(phase)
    if isinstance(error, TooLong | Exceeded) and phase == "requesting":
        return bad_response(
            f"the response's headers have more than {MAX_HEAD_BYTES:,} bytes or {MAX_LINES:,} lines; check the server."
        )
    return bad_response("the response is not valid HTTP; check the server.")


def _broke_off(phase: Phase) -> FetchFailed:
    if phase == "reading":
        return FetchFailed("truncated", "the connection broke off within the body; try again.")
    return FetchFailed("connect_failed")
