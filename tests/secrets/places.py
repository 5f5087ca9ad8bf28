"""URLs with a secret in every part, and servers that make each of them fail in another way."""

from __future__ import annotations

import io
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trustme
from PIL import Image

from producer.contract.upload_token import make_token
from tests.acceptance.conftest import picture
from tests.chaos.null_model import BUG_COLOUR, FULL_COLOUR, REFUSED_COLOUR
from tests.fetch.servers import Exchange, Script, ScriptedServer
from tests.fetch.test_secrets import OK, raw

CANARY = "CANARY"
#: Follows the scheme, host and port in every valid URL.
PATH = "/CANARY.png?X-Amz-Signature=CANARY#CANARY"
PICTURE = picture("PNG", (320, 240), "saddlebrown")
MAX_BYTES = 100_000
MAX_PIXELS = 100_000


def body(data: bytes) -> Script:
    return lambda exchange: exchange.answer(data)


def plain(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def redirect(location: str) -> Script:
    return lambda exchange: exchange.redirect(location)


def loop(exchange: Exchange) -> None:
    exchange.redirect(exchange.path)


def unchanging(exchange: Exchange) -> None:
    exchange.answer(PICTURE, "304 CANARY" if "if-none-match" in exchange.headers else "200 OK", ['ETag: "CANARY"'])


#: How each server responds, and the resulting error code; None if the job succeeds.
SERVERS: dict[str, tuple[Script, str | None]] = {
    "picture": (body(PICTURE), None),
    # A worker does not run the model again for an image that it has embedded already.
    "a picture that is new each time": (lambda exchange: exchange.answer(PICTURE + os.urandom(8)), None),
    "a picture that may be kept": (
        lambda exchange: exchange.answer(PICTURE, headers=["Cache-Control: max-age=600, x=CANARY", 'ETag: "CANARY"']),
        None,
    ),
    "a picture that does not change": (unchanging, None),
    "redirect loop": (loop, "too_many_redirects"),
    "redirect to nowhere": (redirect("//[CANARY"), "bad_redirect"),
    "redirect to a secret": (redirect("http://user:CANARY@127.0.0.1/CANARY"), "invalid_url"),
    "redirect to a host of others": (redirect("http://other.invalid/CANARY"), "host_not_allowed"),
    "two lengths": (raw(OK + b"Content-Length: 4\r\nContent-Length: 5\r\nX: CANARY\r\n\r\n"), "bad_response"),
    "404": (lambda exchange: exchange.answer(b"CANARY", "404 CANARY"), "http_status"),
    "503": (lambda exchange: exchange.answer(b"CANARY", "503 CANARY"), "http_status"),
    "too large": (body(b"CANARY" * MAX_BYTES), "too_large"),
    "empty": (body(b""), "empty"),
    "a page": (body(b"<!doctype html><title>CANARY</title>"), "unsupported_format"),
    "half a picture": (body(picture("JPEG", (200, 300), "crimson")[:900]), "undecodable"),
    "a picture the model refuses": (body(plain(REFUSED_COLOUR)), "model_error"),
    "a picture the model fails on": (body(plain(BUG_COLOUR)), "model_error"),
    "a picture too many for the device": (body(plain(FULL_COLOUR)), "out_of_memory"),
    "many pixels": (body(picture("PNG", (400, 400), "crimson")), "too_many_pixels"),
    "a thin picture": (body(picture("PNG", (310, 8), "crimson")), "bad_aspect_ratio"),
    "truncated": (raw(OK + b"Content-Length: 9\r\n\r\nCANARY"), "truncated"),
    "hang-up": (raw(b""), "connect_failed"),
    "stall": (lambda exchange: exchange.stall(), "fetch_timeout"),
}
#: URLs that fail without a server.
REFUSED: dict[str, str | None] = {
    f"http://user:CANARY@127.0.0.1{PATH}": "invalid_url",
    f"ftp://user:CANARY@127.0.0.1{PATH}": "scheme_not_allowed",
    "CANARY": "scheme_not_allowed",
    "data:image/png;base64,CANARY": "scheme_not_allowed",
    f"http://93.184.216.34:22{PATH}": "port_not_allowed",
    f"http://other.invalid{PATH}": "host_not_allowed",
    f"http://10.0.0.1{PATH}": "address_blocked",
    f"http://no-such-host.invalid{PATH}": "dns_failed",
}
#: The secret of uploads' tokens.
UPLOAD_SECRET = f"{CANARY}-{'s' * 32}"
#: The upload that is still there.
UPLOAD = "u_CANARY"
HOSTS = "127.0.0.1,10.0.0.1,93.184.216.34,no-such-host.invalid"


def uploads(now_s: float) -> dict[str, str | None]:
    """Return images that name uploads, and the code with which each fails."""
    late_s = int(now_s) + 3_600
    valid, gone = (f"upload:{make_token(UPLOAD_SECRET, name, late_s)}" for name in (UPLOAD, "u_CANARY_gone"))
    return {
        valid: None,
        gone: "http_status",
        f"upload:{make_token(UPLOAD_SECRET, UPLOAD, int(now_s) - 1)}": "invalid_url",
        f"{valid.rpartition('.')[0]}.{gone.rpartition('.')[2]}": "invalid_url",
        "upload:CANARY": "invalid_url",
    }


def upload(exchange: Exchange) -> None:
    """Respond as the HTTP API does to a worker that fetches an upload."""
    exchange.answer(*((PICTURE,) if f".{UPLOAD}." in exchange.path else (b"CANARY", "404 CANARY")))


@contextmanager
def served() -> Iterator[tuple[dict[str, str | None], str]]:
    """Return every URL and upload with the code with which it fails, and the URL of uploads, while the servers run."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with ExitStack() as stack:
        urls: dict[str, str | None] = {}
        for script, code in SERVERS.values():
            urls[stack.enter_context(ScriptedServer(script)).url(PATH)] = code
        urls[stack.enter_context(ScriptedServer(body(b""), tls=tls)).url(PATH)] = "tls_failed"
        yield urls | REFUSED | uploads(time.time()), stack.enter_context(ScriptedServer(upload)).url(f"/{CANARY}")
