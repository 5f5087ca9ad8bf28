"""How one attempt at a download fails, and which exception of the network stack means what.

Every message here is a fixed sentence: a URL, host, address, path or the text of an exception never enters one.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Final, Literal

import urllib3.exceptions

from producer.errors import JobFailed

#: What the exchange was doing when an exception came.
Phase = Literal["connecting", "asking", "reading"]


class FetchFailed(JobFailed):
    """A failed attempt; the fetcher retries it or turns it into a plain `JobFailed`.

    Attributes:
        again: whether another attempt within the same fetch makes sense.
        retry_after_s: how many seconds the server asked to be left alone, if it did.
        of_host: whether the host is to blame: unreachable, silent, breaking off, or answering "not now" (408, 425,
            429, 5xx). That is what may go better later, less what this worker itself lacks: a name server, a place.
    """

    def __init__(
        self,
        code: str,
        message: str,
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


TOOK_TOO_LONG: Final = "the download took longer than its time; try again, or raise NAMESHOT_FETCH_TIMEOUT."
#: What hostile or broken servers make the stack raise. ValueError: numbers in headers; OSError holds TimeoutError.
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError)


def timed_out(*, of_host: bool = True) -> FetchFailed:
    """The failure of a download whose time is up."""
    return FetchFailed("fetch_timeout", TOOK_TOO_LONG, of_host=of_host)


def unavailable(message: str) -> FetchFailed:
    """The refusal to ask a host now."""
    return FetchFailed("host_unavailable", message, again=False, of_host=False)


def bad_response(message: str) -> FetchFailed:
    """The failure of a server whose answer is none that HTTP allows; it would give the same again."""
    return FetchFailed("bad_response", message)


def too_large() -> FetchFailed:
    """The failure of a body that is over the limit, announced or counted."""
    return FetchFailed("too_large", "the body is larger than NAMESHOT_MAX_BYTES; send a smaller rendition.")


def truncated() -> FetchFailed:
    """The failure of a body that ends too soon."""
    return FetchFailed("truncated", "the body ended before its announced length; try again.")


def blocked() -> FetchFailed:
    """The refusal of an address that is not public."""
    return FetchFailed(
        "address_blocked",
        "the host is, or resolves to, an address that is not public; use a public host, "
        "or add an exception to NAMESHOT_FETCH_ALLOW.",
    )


def classify(error: BaseException, phase: Phase) -> FetchFailed:
    """The failure that an exception of sockets, TLS, ``http.client`` or urllib3 stands for."""
    if isinstance(error, FetchFailed):
        return error
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return FetchFailed("fetch_timeout", "the server stopped answering; try again, or raise NAMESHOT_FETCH_TIMEOUT.")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _broke_off(phase)
    if isinstance(error, ssl.SSLError | ssl.CertificateError | urllib3.exceptions.SSLError) and phase != "reading":
        return FetchFailed("tls_failed", "the server's certificate or TLS set-up is not valid; mend the certificate.")
    if isinstance(error, ConnectionError):  # http.client.RemoteDisconnected is one too
        return _broke_off(phase)
    if isinstance(error, OSError):
        return _broke_off(phase)
    return FetchFailed("bad_response", "the answer is not the HTTP that was asked for; check the server.")


def _broke_off(phase: Phase) -> FetchFailed:
    if phase == "reading":
        return FetchFailed("truncated", "the connection broke off within the body; try again.")
    return FetchFailed("connect_failed", "no connection could be made, or it broke off; try again.")
