"""The rules for an image's URL that hold whatever a worker's settings are; clients and workers share them."""

from __future__ import annotations

import re
from typing import Final

from producer.contract.spelling import CALL
from producer.contract.upload_token import has_token, is_upload
from producer.errors import InvalidJob

#: Presigned URLs with a role's token have 1,700 to 4,000 characters, and servers and CDNs accept at least 8,192.
MAX_URL_CHARACTERS: Final = 8_192
#: Control characters (C0, DEL, C1), the space, the backslash, which parsers interpret differently, Unicode's line and
#: paragraph separators, and lone surrogates.
FORBIDDEN: Final = re.compile("[\x00-\x20\x7f-\x9f\\\\\u2028\u2029\ud800-\udfff]")

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_AUTHORITY_END: Final = re.compile("[/?#]")


def authority_of(url: str) -> str:
    """Return the part of a URL between ``://`` and its path: user, host and port; empty if there is no ``://``."""
    return _AUTHORITY_END.split(url.partition("://")[2], maxsplit=1)[0]


def fault_of(url: str) -> str | None:
    """Return why no worker fetches this URL, as the end of a sentence about the URL; None if a worker may fetch it."""
    if (length := _characters_on_the_wire(url)) > MAX_URL_CHARACTERS:
        return f"has {length:,} characters; at most {MAX_URL_CHARACTERS:,} are allowed."
    if FORBIDDEN.search(url):
        return "contains a space, a backslash or an invisible character; percent-encode it."
    if "@" in authority_of(url):
        return "contains a user name or password; leave it out."
    return None


def check_url_shape(url: object, name: str = "the image URL") -> str:
    """Return the URL after the checks that are cheap for a client; the worker applies the full URL policy.

    Args:
        url: the image's URL, or the token of an upload.
        name: what the caller calls it.

    Raises:
        InvalidJob: the URL is not a string or neither an absolute http(s) URL nor a token, or it has a fault that no
            setting of a worker permits.
    """
    if not isinstance(url, str):
        raise InvalidJob(f"{name} must be a string, not {CALL.kind(url)}.")
    if is_upload(url):
        if has_token(url):
            return url
        raise InvalidJob(f"{name} must follow upload: with a token as the HTTP API makes it, or be an http(s) URL.")
    scheme = url.partition("://")[0]
    if scheme.lower() not in ("http", "https") or authority_of(url)[:1] in ("", ":"):
        raise InvalidJob(
            f"{name} must be an absolute http:// or https:// URL; other schemes and file paths are refused."
        )
    # For a lone surrogate in one URL, a worker refuses the whole message with all its images. Most URLs are ASCII and
    # skip the search.
    if not url.isascii() and (half := _SURROGATE.search(url)):
        raise InvalidJob(
            f"{name} contains U+{ord(half[0]):04X}, half of a surrogate pair; percent-encode the bytes it represents."
        )
    if fault := fault_of(url):
        raise InvalidJob(f"{name} {fault}")
    return url


def _characters_on_the_wire(url: str) -> int:
    """Return the length of a URL once all characters beyond ASCII are percent-encoded as UTF-8."""
    if url.isascii():
        return len(url)
    encoded = url.encode(errors="replace")
    return sum(1 if byte < 0x80 else 3 for byte in encoded)
