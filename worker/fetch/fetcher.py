"""`Fetcher`: downloads an image from an untrusted URL."""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urljoin

from producer.contract.names import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch.body import finish_empty, finish_unchanged, read_body
from worker.fetch.connection import Dialer, tls_context
from worker.fetch.deadline import Watchdog
from worker.fetch.failures import FetchFailed
from worker.fetch.files import File
from worker.fetch.freshness import CacheTerms, Moment, is_about, renewed, terms_of
from worker.fetch.hosts import PATIENCE_S, Hosts
from worker.fetch.pool import MAX_AGE_S, QUIET_S, KeptConnections
from worker.fetch.resolver import BoundedResolver, Resolve, system_resolve
from worker.fetch.retries import pause_before_next_s
from worker.fetch.session import GuardedResponse, GuardedSession
from worker.fetch.url_policy import FORBIDDEN, SCHEME, Target, UrlPolicy

#: Image URLs of CDNs and shorteners redirect once or twice.
MAX_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class Fetched:
    """A server's final answer to a download.

    Attributes:
        body: the image's bytes; empty if the server answered that nothing has changed.
        terms: on which the answer may be reused; None if it may not.
        is_unchanged: whether the answer that was revalidated still holds.
    """

    body: bytes
    terms: CacheTerms | None
    is_unchanged: bool = False


class Fetcher:
    """Downloads images within limits that no URL, name server or web server can exceed.

    Thread-safe; a worker has one. See `worker.fetch` for the codes and their order.

    Args:
        policy: judges URLs and addresses.
        max_bytes: the largest body, in bytes.
        timeout_s: the longest download in seconds, from the DNS look-up to the last byte, retries included.
        per_host: concurrent downloads from one host and port, and from one address.
        max_connections: idle connections kept for reuse; one host has at most half of them.
        max_connection_age_s: a connection is not reused once it is older than this.
        connection_quiet_s: the shortest time between an answer and the next request on the same connection.
        ca_file: a PEM file of certificate authorities to trust in addition to the public ones.
        resolve: takes a host name and a port, returns addresses as text.
    """

    def __init__(
        self,
        policy: UrlPolicy,
        *,
        max_bytes: int,
        timeout_s: float,
        per_host: int = 64,
        max_connections: int = 128,
        max_connection_age_s: float = MAX_AGE_S,
        connection_quiet_s: float = QUIET_S,
        ca_file: str | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        mute_http_loggers()
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._policy = policy
        self._watchdog = Watchdog()
        # A request gets only a part of the download's time, so with short timeouts silent hosts must be found sooner.
        self._hosts = Hosts(per_host, min(PATIENCE_S, timeout_s / 2))
        dialer = Dialer(self._policy, BoundedResolver(resolve), self._hosts.addresses, timeout_s=timeout_s)
        kept = KeptConnections(max_connections, max_connection_age_s, connection_quiet_s)
        # No content encoding: compressed bytes could grow a thousandfold when decompressed.
        headers = {"User-Agent": "nameshot", "Accept": "image/*,*/*;q=0.8", "Accept-Encoding": "identity"}
        self._session = GuardedSession(dialer, self._watchdog, kept, tls_context(ca_file), headers)
        self._closing = threading.Event()

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> File:
        """Download an image.

        Args:
            url: the image's URL.
            scope: the download ends with this scope, or when the fetcher's own timeout is over.
            queue: the queue whose share of the host's slots the download uses.

        Raises:
            JobFailed: with a code of the contract; it holds no URL, host, address or other exception.
            Cancelled: the scope was cancelled.
        """
        return File(self.ask(self.judge(url), None, scope, queue).body)

    def judge(self, url: str) -> Target:
        """Check a URL against the policy and return what to dial and request.

        Raises:
            JobFailed: the URL may not be fetched.
        """
        return _contained(lambda: self._policy.judge(url), CancelScope(math.inf))

    def ask(self, target: Target, known: CacheTerms | None, scope: CancelScope | None, queue: Queue) -> Fetched:
        """Download like `fetch`, and return the terms on which the answer may be reused as well.

        Args:
            known: the terms of a stored answer, to be revalidated; None if there is none.
        """
        if self._closing.is_set():
            raise RuntimeError("the fetcher is closed")
        within = (scope or CancelScope(math.inf)).within(self._timeout_s)
        return _contained(lambda: self._fetch(target, known, within, queue), within)

    def close(self) -> None:
        """End running downloads and close every connection."""
        self._closing.set()
        self._session.close()
        self._watchdog.close()

    def _fetch(self, target: Target, known: CacheTerms | None, scope: CancelScope, queue: Queue) -> Fetched:
        attempts = 0
        failure: FetchFailed | None = None
        while True:
            attempts += 1
            if scope.is_over:
                raise FetchFailed("fetch_timeout")
            try:
                return self._attempt(target, known, scope, queue, is_first=attempts == 1)
            except FetchFailed as error:
                if failure is not None and error.code == "host_unavailable":
                    raise failure from None  # the earlier failure, which tells why the host is unavailable
                failure = error
            pause_s = pause_before_next_s(failure, attempts, scope.left_s)
            if pause_s is None or self._closing.is_set():
                raise failure
            scope.sleep(pause_s)

    def _attempt(
        self, target: Target, known: CacheTerms | None, scope: CancelScope, queue: Queue, *, is_first: bool
    ) -> Fetched:
        seen = {target.url}
        while True:
            conditions = known.conditions() if known is not None else {}
            asked_s = time.monotonic()
            with (
                self._hosts.visit(target, scope, is_first=is_first, queue=queue) as visit,
                self._session.exchange(
                    target, scope, may_reuse=is_first, conditions=conditions, queue=queue
                ) as response,
            ):
                visit.answered = True
                headers, now_s = response.raw.headers, time.monotonic()
                came = Moment(time.time(), now_s, now_s - asked_s)
                if conditions and known is not None and response.status_code == 304:
                    finish_unchanged(response)
                    if is_about(known, headers):
                        return Fetched(b"", renewed(known, headers, came), is_unchanged=True)
                    known = None  # the 304 is about another answer, so request it without conditions
                    continue
                if response.status_code not in REDIRECTS:
                    body = read_body(response, self._max_bytes)
                    # Answers behind redirects are not reused: the redirect itself may change at any time.
                    return Fetched(body, terms_of(headers, came) if len(seen) == 1 else None)
                target, known = self._follow(target, response), None
                finish_empty(response)
            if target.url in seen or len(seen) > MAX_REDIRECTS:
                raise FetchFailed("too_many_redirects")
            seen.add(target.url)

    def _follow(self, target: Target, response: GuardedResponse) -> Target:
        """Return a redirect's target, judged like a first request. The redirect's body is never read."""
        location = response.headers.get("Location", "")
        try:
            # http.client decodes headers as Latin-1, but servers write UTF-8 and plain spaces, which browsers accept.
            location = location.encode("latin-1").decode("utf-8").replace(" ", "%20")
            # An absolute URL is judged unchanged, since urljoin would repair http:///x.
            following = location if SCHEME.match(location) else urljoin(target.url, location)
        except ValueError:
            location = following = ""
        if not location or FORBIDDEN.search(location):
            raise FetchFailed("bad_redirect")
        judged = self._policy.judge(following)
        if target.scheme == "https" and judged.scheme == "http":
            raise FetchFailed("host_not_allowed", "a redirect left https for http; send the final URL.")
        return judged


def _contained(work: Callable[[], T], scope: CancelScope) -> T:
    """Do the work and turn every error, however hostile its cause, into one that `Fetcher.fetch` may raise."""
    try:
        return work()
    except Cancelled:
        raise
    except FetchFailed as error:
        failure = JobFailed(error.code, error.message, error.retryable)
    except MemoryError:
        failure = JobFailed("out_of_memory", "the worker ran out of memory during the download; try again.")
    except Exception as error:
        # Hostile answers find new ways to break parsers. The exception's own text may hold the URL.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        _logger.error("unexpected %s in %s at line %s", type(error).__name__, frame.name, frame.lineno)
        failure = JobFailed("bad_response", "the answer could not be understood; check the server.")
    # The cancellation itself may have caused the failure.
    scope.check()
    # Raised outside the handlers, so that its context holds no exception with a URL in it.
    raise failure


def mute_http_loggers() -> None:
    """Silence urllib3, whose warning about malformed headers contains the URL; the fetcher logs its own errors."""
    for name in ("urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
