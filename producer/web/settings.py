"""The settings of the HTTP front, which extend a client's."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from producer.settings import ProducerSettings

#: A year of waiting or of counting requests: longer than any use, and far from what a timer cannot represent.
_MAX_S: Final = 31_536_000


class WebSettings(ProducerSettings):
    """The settings of ``nameshot serve``."""

    web_hosts: str = Field(
        "", description="names by which clients reach the HTTP API, comma-separated; others get status 421"
    )
    web_keys_file: str = Field(
        "", description="file of the API keys, a line of `nameshot keys new` each; if unset, no key is needed"
    )
    web_open: bool = Field(
        False, description="whether the HTTP API may listen without keys on an address that is not loopback"
    )
    web_cors_origins: str = Field(
        "", description="origins whose pages may call the HTTP API, comma-separated, such as `https://app.example`"
    )
    web_trusted_proxies: str = Field(
        "", description="addresses of proxies whose `X-Forwarded-` headers count, comma-separated"
    )
    web_root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="path under which a proxy serves the HTTP API, and which the proxy removes, such as `/nameshot`",
    )
    web_max_wait: int = Field(
        25, ge=0, le=_MAX_S, description="the longest `Prefer: wait` in seconds; shorter than any gateway's time limit"
    )
    web_max_streams: int = Field(1000, ge=1, le=1_000_000, description="maximum streams of events in one process")
    web_rate: str = Field(
        "",
        pattern=r"^([1-9]\d{0,8}/[1-9]\d{0,6})?$",
        description="requests per seconds of a key whose line says nothing else, such as `600/60`; unset: no limit",
    )
    web_max_waiting: int | None = Field(
        None, ge=1, description="unanswered jobs that a key may have if its line says nothing else; unset: no limit"
    )


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated setting."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)
