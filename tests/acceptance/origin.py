"""A real HTTP server on loopback that responds as foreign servers do."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Origin:
    """Serves `pages` (path to content type and body); `errors` maps a path to a status, `short` truncates bodies.

    Attributes:
        hold: while clear, requests for paths under ``/held/`` get no response.
        asked: a semaphore released for each request; acquire it to wait for one.
        left: a semaphore released for each client that hung up on a held page; acquire it to wait for one.
        paths: the paths of all requests so far.
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.errors: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.hold = threading.Event()
        self.asked = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self.paths: list[str] = []
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                origin.paths.append(path)
                origin.asked.release()
                if path.startswith("/held/"):
                    threading.Thread(target=self._notice_the_end, daemon=True).start()
                    origin.hold.wait(30)
                    path = path.removeprefix("/held")
                if path in origin.redirects:
                    self._answer(302, "text/plain", b"", location=origin.redirects[path])
                elif path in origin.pages:
                    self._answer(200, *origin.pages[path])
                else:
                    self._answer(origin.errors.get(path, 404), "text/plain", b"no")

            def _answer(self, status: int, kind: str, body: bytes, location: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(body)

            def _notice_the_end(self) -> None:
                with contextlib.suppress(OSError):
                    if not self.connection.recv(1, socket.MSG_PEEK) and not origin.hold.is_set():
                        origin.left.release()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the inherited parameter
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore errors, because a worker may hang up at any time."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    def url(self, path: str) -> str:
        """Return the absolute URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def hold_back(self) -> None:
        """Hold back responses for held pages from now on, and reset the count of requests."""
        self.hold.clear()
        while self.asked.acquire(blocking=False):
            pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
