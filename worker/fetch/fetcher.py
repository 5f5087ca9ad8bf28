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

from producer.contract.image_url import FORBIDDEN
from producer.contract.names import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch.body import finish_empty, finish_unchanged, read_body
from worker.fetch.connection import tls_context
from worker.fetch.deadline import Watchdog
from worker.fetch.dialer import Dialer, Policy
from worker.fetch.failures import FetchFailed
from worker.fetch.files import File
from worker.fetch.freshness import Arrival, CacheTerms, confirms, renewed, terms_of
from worker.fetch.head import BLANKS
from worker.fetch.hosts import PATIENCE_S, Hosts
from worker.fetch.pool import MAX_AGE_S, QUIET_S, KeptConnections
from worker.fetch.proxy import Proxy
from worker.fetch.resolver import BoundedResolver, Resolve, system_resolve
from worker.fetch.retries import pause_before_next_s
from worker.fetch.session import GuardedResponse, GuardedSession
from worker.fetch.url_parts import read_location
from worker.fetch.url_policy import SCHEME, Target
from worker.runtime.shortages import is_shortage

#: The value of ``Accept``: the formats that every worker decodes, so that a server that chooses a format by this field
#: sends one of them.
ACCEPT: Final = "image/jpeg,image/png,image/webp,image/gif,image/avif;q=0.9,*/*;q=0.5"
#: Image URLs of CDNs and shorteners redirect once or twice.
MAX_REDIRECTS: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

T = TypeVar("T")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class Fetched:
    """The final response to a download.

    Attributes:
        body: the image's bytes; empty if the stored response is still valid.
        terms: the terms on which the response may be reused; None if it may not be reused.
        is_unchanged: whether the server has confirmed that the stored response is still valid.
    """

    body: bytes
    terms: CacheTerms | None
    is_unchanged: bool = False


class Fetcher:
    """Downloads images within limits that no URL, name server or web server can exceed.

    Thread-safe; each worker has one fetcher. `worker.fetch` lists the error codes.

    Args:
        policy: decides which URLs and addresses are allowed.
        max_bytes: the size of the largest allowed body, in bytes.
        timeout_s: the longest time that one download may take, from the DNS look-up to the last byte, with all retries.
        per_host: the largest number of concurrent downloads from one host and port, and from one address.
        max_connections: the largest number of idle connections; at most half of them lead to one host.
        max_connection_age_s: the age from which a connection is not reused, in seconds.
        connection_quiet_s: the fewest seconds between a response and the next request on the same connection.
        ca_file: a PEM file of certificate authorities to trust in addition to the public ones.
        user_agent: the ``User-Agent`` of each request.
        max_redirects: the largest number of redirects that one download follows.
        proxy: the operator's proxy, or None; the fetcher ignores the environment's (``HTTP_PROXY``).
        resolve: takes a host name and a port, and returns addresses as text.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_bytes: int,
        timeout_s: float,
        per_host: int = 64,
        max_connections: int = 128,
        max_connection_age_s: float = MAX_AGE_S,
        connection_quiet_s: float = QUIET_S,
        ca_file: str | None = None,
        user_agent: str = "nameshot",
        max_redirects: int = MAX_REDIRECTS,
        proxy: Proxy | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        mute_http_loggers()
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._timeout_s = timeout_s
        self._policy = policy
        self._watchdog = Watchdog()
        # With a short timeout no request lasts `PATIENCE_S`, but timeouts must still count against the host.
        self._hosts = Hosts(per_host, min(PATIENCE_S, timeout_s / 2))
        dialer = Dialer(self._policy, BoundedResolver(resolve), self._hosts.addresses, timeout_s=timeout_s, proxy=proxy)
        kept = KeptConnections(max_connections, max_connection_age_s, connection_quiet_s)
        # The worker asks for uncompressed bodies, because compressed bytes could grow a thousandfold.
        headers = {"User-Agent": user_agent, "Accept": ACCEPT, "Accept-Encoding": "identity"}
        self._session = GuardedSession(dialer, self._watchdog, kept, tls_context(ca_file), headers)
        self._closing = threading.Event()

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> File:
        """Download an image.

        Args:
            url: the image's URL.
            scope: limits the download, in addition to the fetcher's own timeout.
            queue: the queue whose share of the host's slots the download uses.

        Raises:
            JobFailed: the download failed; neither the message nor the exception's context holds a URL or an address.
            Cancelled: the scope was cancelled.
            RuntimeError: the fetcher is closed.
        """
        return File(self.download(self.check(url), None, scope, queue).body)

    def check(self, url: str) -> Target:
        """Check a URL against the policy and return the target to connect to.

        Raises:
            JobFailed: the URL may not be fetched.
        """
        return _contained(lambda: self._policy.check(url), CancelScope(math.inf))

    def download(self, target: Target, known: CacheTerms | None, scope: CancelScope | None, queue: Queue) -> Fetched:
        """Download like `fetch`; return also the terms on which the response may be reused.

        Args:
            known: the terms of a stored response, which the request revalidates; None if there is none.
        """
        if self._closing.is_set():
            raise RuntimeError("the fetcher is closed")
        within = (scope or CancelScope(math.inf)).within(self._timeout_s)
        return _contained(lambda: self._fetch(target, known, within, queue), within)

    def close(self) -> None:
        """End all running downloads and close every connection."""
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
                    raise failure from None  # the earlier failure says more about the host
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
            requested_s = time.monotonic()
            with (
                self._hosts.visit(target, scope, is_first=is_first, queue=queue) as visit,
                self._session.exchange(
                    target, scope, may_reuse=is_first, conditions=conditions, queue=queue
                ) as response,
            ):
                visit.has_responded = True
                headers, now_s = response.raw.headers, time.monotonic()
                arrival = Arrival(time.time(), now_s, now_s - requested_s)
                if conditions and known is not None and response.status_code == 304:
                    finish_unchanged(response)
                    if confirms(known, headers):
                        return Fetched(b"", renewed(known, headers, arrival), is_unchanged=True)
                    known = None  # the 304 does not confirm our stored response, so request without conditions
                    continue
                if response.status_code not in REDIRECTS:
                    body = read_body(response, self._max_bytes)
                    # A response behind a redirect is not reused, because the redirect may change at any time.
                    return Fetched(body, terms_of(headers, arrival) if len(seen) == 1 else None)
                target, known = self._follow(target, response), None
                finish_empty(response)
            if target.url in seen or len(seen) > self._max_redirects:
                raise FetchFailed("too_many_redirects")
            seen.add(target.url)

    def _follow(self, target: Target, response: GuardedResponse) -> Target:
        """Return a redirect's target after the same checks as for a first request; never read the redirect's body."""
        locations = {value.strip(BLANKS) for value in response.raw.headers.getlist("Location")}
        if len(locations) != 1:  # none, or several that differ
            raise FetchFailed("bad_redirect")
        (location,) = locations
        try:
            location = read_location(location)
            # The policy checks an absolute URL as it is, because urljoin would repair http:///x.
            url = location if SCHEME.match(location) else urljoin(target.url, location)
        except ValueError:
            location = url = ""
        if not location or FORBIDDEN.search(location):
            raise FetchFailed("bad_redirect")
        try:
            following = self._policy.check(url)
        except FetchFailed as error:
            raise FetchFailed(error.code, f"a redirect leads to a URL that is refused: {error.message}") from None
        if target.scheme == "https" and following.scheme == "http":
            raise FetchFailed("host_not_allowed", "a redirect leads from https to http; send the final URL.")
        return following


def _contained(work: Callable[[], T], scope: CancelScope) -> T:
    """Return the result of the work; turn every error into one that `Fetcher.fetch` may raise."""
    try:
        return work()
    except Cancelled:
        raise
    except FetchFailed as error:
        failure = JobFailed(error.code, error.message, error.retryable)
    except Exception as error:
        if is_shortage(error):
            failure = JobFailed("out_of_memory", "the worker had no memory or threads left; try again.")
        else:
            failure = _unexpected(error)
    # The cancellation itself may have caused the failure.
    scope.check()
    # Raising outside the handlers keeps the original exception, which may hold the URL, out of the failure's context.
    raise failure


def mute_http_loggers() -> None:
    """Silence the loggers of urllib3 and requests, because urllib3's warning about malformed headers holds the URL."""
    for name in ("urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _unexpected(error: Exception) -> JobFailed:
    # A hostile response may break a parser. The log line omits the exception's text, which may hold the URL.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    _logger.error("unexpected %s in %s at line %s", type(error).__name__, frame.name, frame.lineno)
    return JobFailed("bad_response", "the response could not be parsed; check the server.")
