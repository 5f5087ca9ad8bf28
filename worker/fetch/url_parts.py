"""Turns the parts of a URL into what goes onto the wire: a request target and an ASCII host. Pure; no I/O."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

import idna

#: Everything beyond printable ASCII.
_NOT_ASCII: Final = re.compile(r"[^\x21-\x7e]+")
_ASCII: Final = bytes(range(128)).decode()
#: ASCII characters that no host name contains. UTS 46 maps fullwidth forms to them: once mapped, ``／``, ``？``, ``＠``
#: and ``：`` would end the host.
_NO_NAME: Final = re.compile(r"[\x00-\x7f](?<![a-z0-9._-])")
_INVISIBLE: Final = re.compile("[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
#: The path segments that mean the folder itself and the one above; browsers also read them if percent-encoded.
_HERE: Final = frozenset((".", "%2e"))
_ABOVE: Final = frozenset(("..", ".%2e", "%2e.", "%2e%2e"))


def request_target(rest: str) -> str:
    """Return the path and query for the request line, from what follows a URL's host.

    Printable ASCII stays as it is, also where a parser would normalise it: a server may check a signature over the raw
    path. As browsers and curl do, dot segments are resolved, the fragment is dropped, and other characters are
    percent-encoded as UTF-8.
    """
    before_fragment = rest.partition("#")[0]
    path, mark, query = before_fragment.partition("?")
    return _NOT_ASCII.sub(lambda found: quote(found[0]), _without_dot_segments(path) + mark + query)


def _without_dot_segments(path: str) -> str:
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for number, segment in enumerate(segments, 1):
        name = segment.lower()
        if name in _ABOVE and kept:
            kept.pop()
        if name not in _HERE | _ABOVE:
            kept.append(segment)
        elif number == len(segments):
            kept.append("")
    return "/" + "/".join(kept)


def read_location(field: str) -> str:
    """Return the URL in a ``Location`` field, which ``http.client`` decodes as Latin-1.

    Servers send UTF-8, plain spaces and bytes in other encodings; browsers accept all three, and percent-encode spaces
    and bytes that are not UTF-8.
    """
    try:
        location = field.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        location = quote(field, safe=_ASCII, encoding="latin-1")
    return location.replace(" ", "%20")


def ascii_host(host: str) -> str:
    """Return a host name as DNS knows it, mapped as browsers map it (UTS 46, without transitional processing).

    Raises:
        UnicodeError: a character that no host name may have, or one that stands for a delimiter of URLs.
    """
    if host.isascii():
        return host
    if found := _INVISIBLE.search(host):  # UTS 46 drops these, and people cannot see the difference
        raise UnicodeError(f"U+{ord(found[0]):04X} in a host name")
    mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
    if found := _NO_NAME.search(mapped):
        raise UnicodeError(f"U+{ord(found[0]):04X} in a host name")
    labels = mapped.split(".")
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)
