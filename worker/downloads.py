"""Builds the parts of a worker that download images from its settings: policies, proxy and fetchers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypedDict

from producer.version import own_version
from worker.fetch import Fetcher, UrlPolicy
from worker.fetch.connection import tls_context
from worker.fetch.proxy import Proxy
from worker.fetch.uploads import Fetchers, UploadFetcher, UploadPolicy
from worker.settings import WorkerSettings


class _Limits(TypedDict):
    """The arguments that the fetchers of URLs and of uploads share."""

    max_bytes: int
    timeout_s: float
    per_host: int
    ca_file: str | None
    user_agent: str


def fetch_policy(settings: WorkerSettings) -> UrlPolicy:
    """Return the URL policy of the settings; raise `SettingsError` if a setting for downloads cannot be used.

    That includes the CA file, the proxy and the settings of uploads, which are not part of the policy.
    """
    tls_context(_ca_file(settings))
    _proxy(settings)
    _upload_policy(settings, time.time)
    return UrlPolicy.parsed(settings.fetch_ports, settings.fetch_allow, settings.fetch_hosts)


def build_fetchers(
    settings: WorkerSettings, policy: UrlPolicy, concurrency: int, now_s: Callable[[], float]
) -> tuple[Fetchers, int]:
    """Return the fetchers, and the largest number of idle connections that they keep.

    Args:
        policy: the result of `fetch_policy`.
        concurrency: the largest number of images in flight.
        now_s: returns the seconds since the epoch, by which uploads' tokens expire.
    """
    limits: _Limits = {
        "max_bytes": settings.max_bytes,
        "timeout_s": settings.fetch_timeout,
        "per_host": settings.fetch_per_host,
        "ca_file": _ca_file(settings),
        "user_agent": settings.fetch_user_agent or "/".join(filter(None, ("nameshot", own_version()))),
    }
    # At most half of the idle connections lead to one host, so twice `fetch_per_host` keeps all of that host's.
    of_one_host = min(concurrency, settings.fetch_per_host)
    idle = max(concurrency, 2 * of_one_host)
    fetcher = Fetcher(
        policy, **limits, max_connections=idle, max_redirects=settings.fetch_redirects, proxy=_proxy(settings)
    )
    upload_policy = _upload_policy(settings, now_s)
    if upload_policy is None:
        return Fetchers(fetcher, None), idle
    return Fetchers(
        fetcher, UploadFetcher(upload_policy, **limits, max_connections=2 * of_one_host)
    ), idle + of_one_host


def _ca_file(settings: WorkerSettings) -> str | None:
    return None if settings.fetch_ca_file is None else str(settings.fetch_ca_file)


def _proxy(settings: WorkerSettings) -> Proxy | None:
    return Proxy.parsed(settings.fetch_proxy, settings.fetch_direct, settings.fetch_proxy_tunnel)


def _upload_policy(settings: WorkerSettings, now_s: Callable[[], float]) -> UploadPolicy | None:
    return UploadPolicy.parsed(settings.upload_url, settings.upload_secret, now_s)
