"""What may be read of an answer, and how much of it. A limit that is passed is an error, never a cut."""

from __future__ import annotations

import re
from typing import Final

from urllib3.response import HTTPResponse

from producer.errors import is_retryable_status
from worker.fetch.failures import NETWORK_ERRORS, FetchFailed, classify
from worker.fetch.retries import retry_after_s
from worker.fetch.session import GuardedResponse

#: One read of a body without an announced length.
PIECE_BYTES: Final = 65_536


def read_body(response: GuardedResponse, max_bytes: int) -> bytes:
    """The whole body of a 200, at most ``max_bytes`` bytes, exactly as sent; ends the exchange.

    Raises:
        FetchFailed: ``http_status``, ``bad_response``, ``too_large``, ``truncated``, ``empty``, ``fetch_timeout``.
    """
    raw = response.raw
    if response.status_code != 200:
        raise _refused_status(response)
    if raw.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise _bad_response("the server compressed the image's bytes; switch its content encoding off.")
    length = announced_length(raw)
    if length is not None and length > max_bytes:
        raise _too_large()
    try:
        body = _read(raw, length, max_bytes)
    except NETWORK_ERRORS as error:
        raise classify(error, "reading") from None
    response.finish(keep=True)
    if not body:
        raise FetchFailed("empty", "the body has no bytes; check the upload.")
    return body


def announced_length(raw: HTTPResponse) -> int | None:
    """The length of the body in bytes as announced; None when it ends with a last chunk or with the connection.

    Raises:
        FetchFailed: ``bad_response`` for headers that two readers could take differently.
    """
    lengths = raw.headers.getlist("Content-Length")
    codings = raw.headers.getlist("Transfer-Encoding")
    if codings:
        if len(codings) > 1 or codings[0].strip().lower() != "chunked" or lengths:
            raise _bad_response("the answer announces its length in two ways; check the server.")
        return None
    if not lengths:
        return None
    if len(set(lengths)) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0].strip(), re.ASCII):
        raise _bad_response("the answer announces an impossible length; check the server.")
    return int(lengths[0])


def _read(raw: HTTPResponse, length: int | None, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size_bytes = 0
    while piece := raw.read(length or PIECE_BYTES, decode_content=False):
        size_bytes += len(piece)
        if size_bytes > max_bytes:
            raise _too_large()
        pieces.append(piece)
        if size_bytes == length:
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _refused_status(response: GuardedResponse) -> FetchFailed:
    status = response.status_code
    retryable = is_retryable_status(status)
    finish_empty(response)
    advice = "try again later" if retryable else "check that the URL is public and has not expired"
    return FetchFailed(
        "http_status",
        f"the server answered with status {status}, not 200; {advice}.",
        retryable,
        retry_after_s=retry_after_s(response.headers.get("Retry-After")) if retryable else None,
    )


def finish_empty(response: GuardedResponse) -> None:
    """Keep the connection of an answer that announced to have no body; others are closed with their bodies unread."""
    if response.headers.get("Content-Length") == "0" and response.status_code not in (204, 304):
        _finish(response)


def finish_unchanged(response: GuardedResponse) -> None:
    """Keep the connection of a 304, which has no body; one that announces any may be about to send it."""
    if response.headers.get("Content-Length", "0") == "0":
        _finish(response)


def _finish(response: GuardedResponse) -> None:
    if "Transfer-Encoding" not in response.headers:
        response.raw.read(1, decode_content=False)  # reads nothing; tells http.client that the answer is over
        response.finish(keep=True)


def _bad_response(message: str) -> FetchFailed:
    return FetchFailed("bad_response", message)


def _too_large() -> FetchFailed:
    return FetchFailed("too_large", "the body is larger than NAMESHOT_MAX_BYTES; send a smaller rendition.")
