"""Downloads of uploads: files of the HTTP API, which workers fetch under a token from one address and no other.

A token's fetcher has its own policy, session and connections. Its policy makes every URL that it requests from the
operator's base URL, so it needs no rules for addresses, and no other URL can reach that address through it. The policy
for all other URLs stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Self

from producer.contract.names import Queue
from producer.contract.upload_token import PREFIX, TokenRefused, check_token, is_upload
from producer.errors import JobFailed, SettingsError
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.address_policy import Address
from worker.fetch.failures import FetchFailed
from worker.fetch.fetcher import Fetched, Fetcher
from worker.fetch.files import File
from worker.fetch.freshness import CacheTerms
from worker.fetch.refusals import invalid
from worker.fetch.session import GuardedResponse
from worker.fetch.url_policy import Target, plain_target

#: Where the HTTP API serves uploads, below its base URL.
PATH = "/internal/uploads/"


class UploadTarget(Target):
    """An upload with a valid token; `url` is the token, so that no cache confuses it with a URL of the same address."""

    __slots__ = ()

    @property
    def url(self) -> str:
        """The upload as a message names it."""
        return PREFIX + self.path.rpartition("/")[2]


class UploadPolicy:
    """Allows valid tokens only, and requests all of them from one base URL.

    Args:
        base: the HTTP API, as this worker reaches it.
        secret: the secret with which the HTTP API makes tokens.
        now_s: returns the current time in seconds since the epoch.
    """

    def __init__(self, base: Target, secret: str, now_s: Callable[[], float]) -> None:
        self._base = base
        self._secret = secret
        self._now_s = now_s

    @classmethod
    def parsed(cls, url: str, secret: str, now_s: Callable[[], float]) -> Self | None:
        """Read ``NAMESHOT_UPLOAD_URL`` and ``NAMESHOT_UPLOAD_SECRET``; return None if neither is set.

        Raises:
            SettingsError: only one of them is set, or the URL cannot be used.
        """
        if not url and not secret:
            return None
        if not url or not secret:
            unset, given = ("URL", "SECRET") if secret else ("SECRET", "URL")
            raise SettingsError(
                f"NAMESHOT_UPLOAD_{given} is set, but NAMESHOT_UPLOAD_{unset} is not; set both or neither."
            )
        try:
            base = plain_target(url)
        except FetchFailed:
            base = None
        if base is None or "?" in url or "#" in url:
            raise SettingsError(
                "NAMESHOT_UPLOAD_URL cannot be used; write the base URL of the HTTP API, such as http://web:8000, "
                "without user, query or fragment."
            )
        return cls(base, secret, now_s)

    def check(self, url: object) -> Target:
        """Return the target of an upload.

        Raises:
            FetchFailed: ``invalid_url``: this is no upload, or its token is not valid.
        """
        if not isinstance(url, str) or not is_upload(url):
            raise invalid("this is not an upload's token.")
        token = url.removeprefix(PREFIX)  # in capital letters the scheme stays, so that the token is malformed
        try:
            check_token(self._secret, token, self._now_s())
        except TokenRefused as refused:
            raise invalid(f"the upload's token {refused}") from None
        base = self._base
        path = base.path.rstrip("/") + PATH + token
        return UploadTarget(base.scheme, base.host, base.port, path, base.address, None)

    def choose(self, target: Target, resolved: Sequence[Address | None]) -> list[Address]:  # noqa: ARG002 - as UrlPolicy
        """Return all addresses of the base URL's host, because the operator trusts it.

        Raises:
            FetchFailed: ``dns_failed``: there is none.
        """
        known = [address for address in resolved if address is not None]
        if not known:
            raise FetchFailed("dns_failed", of_host=False)
        return known


class UploadFetcher(Fetcher):
    """A fetcher for an `UploadPolicy`; it follows no redirect."""

    def _follow(self, target: Target, response: GuardedResponse) -> NoReturn:  # noqa: ARG002 - as in the base class
        raise FetchFailed(
            "too_many_redirects",
            "the HTTP API redirected an upload, which no worker follows; check NAMESHOT_UPLOAD_URL.",
        )


class Fetchers:
    """Downloads uploads with one fetcher and all other images with another.

    Args:
        fetcher: downloads URLs.
        uploads: downloads uploads; None if this worker has no secret.
    """

    def __init__(self, fetcher: Fetcher, uploads: UploadFetcher | None) -> None:
        self._fetcher = fetcher
        self._uploads = uploads

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> File:
        """Implement `Downloads.fetch`."""
        return File(self.download(self.check(url), None, scope, queue).body)

    def check(self, url: str) -> Target:
        """Check a URL or a token, as `Fetcher.check` does."""
        if not isinstance(url, str) or not is_upload(url):
            return self._fetcher.check(url)
        if self._uploads is None:
            raise JobFailed(
                "invalid_url",
                "this worker fetches no uploads; set NAMESHOT_UPLOAD_URL and NAMESHOT_UPLOAD_SECRET for all workers.",
            )
        return self._uploads.check(url)

    def download(self, target: Target, known: CacheTerms | None, scope: CancelScope | None, queue: Queue) -> Fetched:
        """Download a checked target, as `Fetcher.download` does."""
        fetcher = self._uploads if isinstance(target, UploadTarget) else self._fetcher
        if fetcher is None:
            raise RuntimeError("an upload's target, but no fetcher for uploads")
        return fetcher.download(target, known, scope, queue)

    def close(self) -> None:
        """Implement `Downloads.close`."""
        self._fetcher.close()
        if self._uploads is not None:
            self._uploads.close()
