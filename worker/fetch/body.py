"""Reads the body of a response; if a body exceeds a limit, the download fails, and the body is never cut to size."""

from __future__ import annotations

import re
from io import BufferedReader, BytesIO
from typing import Final

from urllib3.response import HTTPResponse

from producer.errors import is_retryable_status
from worker.fetch.chunks import PIECE_BYTES, max_framing_bytes, read_chunks
from worker.fetch.failures import NETWORK_ERRORS, FetchFailed, bad_response, classify
from worker.fetch.head import BLANKS, list_members
from worker.fetch.meter import Exceeded, Meter
from worker.fetch.retries import retry_after_s
from worker.fetch.session import GuardedResponse

#: Encodings of content that change its bytes (IANA's registry, and the names that RFC 9110 calls equivalent). Any other
#: name, such as ``aws-chunked`` of an upload that S3 stored, leaves the body as it is.
COMPRESSIONS: Final = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"))
#: The module http.client represents HTTP/1.0 by this number.
_HTTP_1_0: Final = 10


def read_body(response: GuardedResponse, max_bytes: int) -> bytes:
    """Return the whole body of a 200 response, of at most ``max_bytes`` bytes, and end the exchange.

    Raises:
        FetchFailed: ``http_status``, ``bad_response``, ``too_large``, ``truncated``, ``empty``, ``fetch_timeout``.
    """
    if response.status_code != 200:
        raise _refused_status(response)
    raw = response.raw
    if set(list_members(raw.headers.getlist("Content-Encoding"))) & COMPRESSIONS:
        raise bad_response("the server compressed the image, against the request; switch the compression off.")
    is_chunked, length = framing(raw)
    if length is not None and length > max_bytes:
        raise FetchFailed("too_large")
    strict = response.strict
    try:
        if is_chunked:
            strict.meter.allow(max_bytes + max_framing_bytes(max_bytes))
            body = read_chunks(strict.wire, max_bytes)
        elif length is not None:
            strict.meter.allow(length)
            body = strict.wire.read(length)
            if len(body) < length:
                raise FetchFailed("truncated")
        else:
            strict.meter.allow(max_bytes + 1)
            body = _read_to_the_end(strict.wire, max_bytes)
    except Exceeded:
        raise FetchFailed("too_large") from None
    except NETWORK_ERRORS as error:
        raise classify(error, "reading") from None
    strict.close()
    response.finish(keep=True)
    if not body:
        raise FetchFailed("empty")
    return body


def framing(raw: HTTPResponse) -> tuple[bool, int | None]:
    """Return whether the body is chunked, and the announced length in bytes, or None if no length is announced.

    Raises:
        FetchFailed: ``bad_response`` for headers that two readers could interpret differently.
    """
    lengths = [length.strip(BLANKS) for length in raw.headers.getlist("Content-Length")]
    if codings := raw.headers.getlist("Transfer-Encoding"):
        # HTTP/1.0 has no transfer codings, so an HTTP/1.0 reader would read the chunk sizes as body (RFC 9112, 6.1).
        if list_members(codings) != ["chunked"] or lengths or raw.version == _HTTP_1_0:
            raise bad_response("the response's headers contradict each other about its length; check the server.")
        return True, None
    if not lengths:
        return False, None
    if len(set(lengths)) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0], re.ASCII):
        raise bad_response("the response announces an impossible length; check the server.")
    return False, int(lengths[0])


def _read_to_the_end(wire: BufferedReader[Meter], max_bytes: int) -> bytes:
    body = BytesIO()
    while piece := wire.read(min(PIECE_BYTES, max_bytes + 1 - body.tell())):
        if body.write(piece) and body.tell() > max_bytes:
            raise FetchFailed("too_large")
    return body.getvalue()


def _refused_status(response: GuardedResponse) -> FetchFailed:
    status = response.status_code
    retryable = is_retryable_status(status)
    finish_empty(response)
    who = "the server, or the worker's proxy," if response.is_forwarded else "the server"
    advice = "try again later" if retryable else "check that the URL is public and has not expired"
    return FetchFailed(
        "http_status",
        f"{who} responded with status {status}, not 200; {advice}.",
        retryable,
        retry_after_s=retry_after_s(response.headers.get("Retry-After")) if retryable else None,
    )


def finish_empty(response: GuardedResponse) -> None:
    """Keep the connection if the response announces an empty body; otherwise the exchange closes it without reading."""
    if response.headers.get("Content-Length") == "0" and response.status_code not in (204, 304):
        _finish(response)


def finish_unchanged(response: GuardedResponse) -> None:
    """Keep the connection of a 304 response, unless its headers announce a body, which might then follow."""
    if response.headers.get("Content-Length", "0") == "0":
        _finish(response)


def _finish(response: GuardedResponse) -> None:
    if "Transfer-Encoding" not in response.headers:
        response.strict.close()
        response.finish(keep=True)
