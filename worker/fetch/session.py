"""A ``requests`` session that sends only checked requests and follows no redirect.

A plain session follows redirects, and reads each redirect's whole body even with redirects disabled; it gets proxies,
credentials and certificates from the environment, and keeps cookies. `GuardedSession` does none of these things,
because it overrides ``send``, through which every request goes. It has no transport adapters, and ``send`` rejects
every request that is not a `CheckedRequest`.
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
from worker.fetch.connection import Connection, open_connection
from worker.fetch.deadline import Watchdog
from worker.fetch.dialer import Dialer
from worker.fetch.failures import NETWORK_ERRORS, FetchFailed, Phase, classify
from worker.fetch.pool import KeptConnections
from worker.fetch.proxy import unauthorized
from worker.fetch.url_policy import Target

#: A reused connection raises one of these if the server has closed it, or has sent bytes after the previous response.
STALE: Final = (ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine)


class CheckedRequest(requests.PreparedRequest):
    """A GET request for a target that the URL policy allows, with the scope that limits it."""

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
    """A response with an unread body; as a context manager it ends the exchange on exit."""

    def __init__(self, raw: HTTPResponse, connection: Connection, kept: KeptConnections) -> None:
        super().__init__()
        self.status_code = raw.status
        self.headers = CaseInsensitiveDict(raw.headers)
        self.raw: HTTPResponse = raw
        #: Readers of the body use this response; ``raw`` serves only for its headers.
        self.strict = connection.last_response
        #: Whether a proxy read the request, and may have responded in the server's place.
        self.is_forwarded = connection.forwarder is not None
        self._exchange: Connection | None = connection
        self._kept = kept

    def finish(self, keep: bool = False) -> None:
        """End the exchange.

        Args:
            keep: whether the body was read to its end, so that another exchange may reuse the connection.

        Raises:
            FetchFailed: ``fetch_timeout``: the deadline passed. Even a body that seems complete fails then, because a
                reader can mistake the watchdog's shutdown for the end of the body.
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
    """A session without redirects, cookies, credentials or settings from the environment."""

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
        """Request a target and return the response; reuse an idle connection if `may_reuse` is true."""
        headers = CaseInsensitiveDict({**self._own_headers, **conditions})
        return self.send(CheckedRequest(target, headers, scope, may_reuse=may_reuse, queue=queue))

    def send(self, request: requests.PreparedRequest, **_options: Any) -> GuardedResponse:
        """Send a checked request and return its response, whatever its status, with an unread body.

        The options of `requests` for timeouts, certificates and proxies have no effect.
        """
        if not isinstance(request, CheckedRequest):
            raise TypeError("only a CheckedRequest may be sent")
        kept = self._kept.take(request.target) if request.may_reuse else None
        if kept is not None:
            # The server may close an idle connection at the moment of its reuse; a GET is safe to repeat.
            with contextlib.suppress(*STALE):
                return self._respond(kept, request, fresh=False)
        connection = open_connection(request.target, self._dialer, self._watchdog, self._tls)
        return self._respond(connection, request, fresh=True)

    def close(self) -> None:
        """Close the idle connections."""
        self._kept.close()

    def _respond(self, connection: Connection, request: CheckedRequest, *, fresh: bool) -> GuardedResponse:
        phase: Phase = "connecting"
        try:
            connection.begin(request.scope, request.queue)
            if fresh:
                connection.connect()
            phase = "requesting"
            path, headers = connection.addressed(request.target.path, request.headers)
            connection.request("GET", path, headers=headers, preload_content=False, decode_content=False)
            response = connection.getresponse()
            if response.status == 407 and connection.forwarder is not None:
                raise unauthorized()
            return GuardedResponse(response, connection, self._kept)
        except BaseException as error:
            expired = connection.dispose()
            if isinstance(error, FetchFailed):
                raise
            if expired:
                raise FetchFailed("fetch_timeout") from None
            if isinstance(error, NETWORK_ERRORS) and (fresh or not isinstance(error, STALE)):
                raise classify(error, phase) from None
            raise
