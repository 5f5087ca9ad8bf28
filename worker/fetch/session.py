"""A ``requests`` session that sends only judged requests and never acts on an answer by itself.

`requests` follows redirects, and reads each redirect's whole body even with redirects disabled; it takes proxies,
credentials and certificates from the environment, and keeps cookies. None of that happens here: `GuardedSession.send`,
through which every request goes, sends it over a connection of its own and returns the answer. It has no transport
adapters, and refuses requests that are not a `JudgedRequest`.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Mapping
from typing import Any, Final

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.response import HTTPResponse

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.connection import Connection, Dialer, open_connection
from worker.fetch.deadline import Watchdog
from worker.fetch.failures import NETWORK_ERRORS, FetchFailed, Phase, classify
from worker.fetch.pool import KeptConnections
from worker.fetch.url_policy import Target

#: A reused connection that the server has closed, or sent surplus bytes on, raises one of these before an answer.
STALE: Final = (ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine)


class JudgedRequest(requests.PreparedRequest):
    """A GET request for a target that the URL policy has judged; it ends with its scope."""

    def __init__(
        self,
        target: Target,
        headers: CaseInsensitiveDict[str],
        scope: CancelScope,
        *,
        may_reuse: bool = True,
        queue: Queue = "default",
    ) -> None:
        super().__init__()
        self.method = "GET"
        self.url = target.url
        self.headers = headers
        self.target = target
        self.scope = scope
        self.may_reuse = may_reuse
        self.queue: Queue = queue


class GuardedResponse(requests.Response):
    """An answer whose headers are read and whose body is not; a context manager that ends the exchange."""

    def __init__(self, raw: HTTPResponse, connection: Connection, kept: KeptConnections) -> None:
        super().__init__()
        self.status_code = raw.status
        self.headers = CaseInsensitiveDict(raw.headers)
        self.raw: HTTPResponse = raw
        #: The body is read from here; ``raw`` is urllib3's view of the headers.
        self.answer = connection.answer
        self._exchange: Connection | None = connection
        self._kept = kept

    def finish(self, keep: bool = False) -> None:
        """End the exchange; keep the connection for another if the body was read to its end.

        Raises:
            FetchFailed: ``fetch_timeout``, when the deadline passed. The watchdog's shutdown looks like a clean end of
                file, so this is checked last, even if the body seems complete.
        """
        connection, self._exchange = self._exchange, None
        if connection is None:
            return
        if not keep or connection.sock is None or connection.has_surplus:
            expired = connection.dispose()
        elif expired := connection.end():
            connection.dispose()
        else:
            self._kept.give(connection)
        if expired:
            raise FetchFailed("fetch_timeout")

    def __enter__(self) -> GuardedResponse:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


class GuardedSession(requests.Session):
    """A session without redirects, environment, cookies and credentials.

    It reuses a connection or dials a judged address, sends the request and reads the headers.
    """

    def __init__(
        self, dialer: Dialer, watchdog: Watchdog, kept: KeptConnections, tls: ssl.SSLContext, headers: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.adapters.clear()
        self._own_headers = headers
        self._dialer = dialer
        self._watchdog = watchdog
        self._kept = kept
        self._tls = tls

    def exchange(
        self, target: Target, scope: CancelScope, *, may_reuse: bool, conditions: Mapping[str, str], queue: Queue
    ) -> GuardedResponse:
        """Request a judged target, over an idle connection if there is one and `may_reuse` is true."""
        headers = CaseInsensitiveDict({**self._own_headers, **conditions})
        return self.send(JudgedRequest(target, headers, scope, may_reuse=may_reuse, queue=queue))

    def send(self, request: requests.PreparedRequest, **_options: Any) -> GuardedResponse:
        """Send a judged request and return its answer, whatever its status, with the body unread.

        The caller cannot choose timeouts, certificates or proxies.
        """
        if not isinstance(request, JudgedRequest):
            raise TypeError("only a JudgedRequest may be sent")
        kept = self._kept.take(request.target) if request.may_reuse else None
        if kept is not None:
            # The server may close an idle connection just as it is reused; a GET may safely be repeated.
            with contextlib.suppress(*STALE):
                return self._respond(kept, request, fresh=False)
        connection = open_connection(request.target, self._dialer, self._watchdog, self._tls)
        return self._respond(connection, request, fresh=True)

    def close(self) -> None:
        """Close the idle connections."""
        self._kept.close()

    def _respond(self, connection: Connection, request: JudgedRequest, *, fresh: bool) -> GuardedResponse:
        phase: Phase = "connecting"
        try:
            connection.begin(request.scope, request.queue)
            if fresh:
                connection.connect()
            phase = "asking"
            connection.request(
                "GET", request.target.path, headers=request.headers, preload_content=False, decode_content=False
            )
            return GuardedResponse(connection.getresponse(), connection, self._kept)
        except BaseException as error:
            expired = connection.dispose()
            if isinstance(error, FetchFailed):
                raise
            if expired:
                raise FetchFailed("fetch_timeout") from None
            if isinstance(error, NETWORK_ERRORS) and (fresh or not isinstance(error, STALE)):
                raise classify(error, phase) from None
            raise
