"""The failures of a download attempt, and their mapping from exceptions of the network stack.

Every message is a fixed sentence and never contains a URL, host, address, path or an exception's text.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Final, Literal

import urllib3.exceptions

from producer.errors import JobFailed

#: The phase of the exchange in which an exception was raised.
Phase = Literal["connecting", "asking", "reading"]


class FetchFailed(JobFailed):
    """A failed attempt; the fetcher retries it or turns it into a plain `JobFailed`.

    Attributes:
        again: whether another attempt within the same fetch makes sense.
        retry_after_s: seconds of the server's ``Retry-After``, if any.
        of_host: whether the failure counts against the host: it is unreachable or silent, breaks off, or answers 408,
            425, 429 or 5xx. So do retryable failures, unless the worker itself lacks a name server or a slot.
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


#: Hostile or broken servers make the network stack raise these: ValueError for numbers in headers, OSError also for
#: timeouts.
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError)


def unavailable(message: str) -> FetchFailed:
    """Return the failure of a download that may not contact its host now."""
    return FetchFailed("host_unavailable", message, again=False, of_host=False)


def bad_response(message: str) -> FetchFailed:
    """Return the failure for an answer that HTTP does not allow, which a retry would not change."""
    return FetchFailed("bad_response", message)


def classify(error: BaseException, phase: Phase) -> FetchFailed:
    """Translate an exception of sockets, TLS, ``http.client`` or urllib3 into a failure."""
    if isinstance(error, FetchFailed):
        return error
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return FetchFailed("fetch_timeout", "the server stopped answering; try again, or raise NAMESHOT_FETCH_TIMEOUT.")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _broke_off(phase)
    if isinstance(error, ssl.SSLError | ssl.CertificateError | urllib3.exceptions.SSLError) and phase != "reading":
        return FetchFailed("tls_failed", "the server's certificate or TLS set-up is not valid; fix the certificate.")
    if isinstance(error, OSError):  # http.client.RemoteDisconnected is one too
        return _broke_off(phase)
    return FetchFailed("bad_response", "the answer is not valid HTTP; check the server.")


def _broke_off(phase: Phase) -> FetchFailed:
    if phase == "reading":
        return FetchFailed("truncated", "the connection broke off within the body; try again.")
    return FetchFailed("connect_failed")
