"""DNS look-ups for which a download waits no longer than its scope lasts.

``getaddrinfo`` has no timeout and cannot be interrupted, so each look-up runs in a thread of its own, which a download
abandons when its scope ends. The number of threads is limited, and they are daemon threads, so that a look-up that
hangs does not delay the end of the process.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.address_policy import Address, parse_address
from worker.fetch.failures import FetchFailed, shortage
from worker.fetch.slots import Slots
from worker.runtime.shortages import can_open_files, is_shortage

#: A function that takes a host name and a port and returns addresses as text, or raises OSError if there are none.
Resolve = Callable[[str, int], Sequence[str]]

#: This many look-ups may run at once. Each normally occupies a thread for milliseconds; one that hangs occupies it for
#: the timeout in resolv.conf, often 10 s.
MAX_LOOKUPS: Final = 32
#: A domain (the last two labels of a name) may use one in this many of the look-up threads. If its name servers are
#: silent, its look-ups outlast their jobs and must leave threads for those of other domains.
DOMAIN_SHARE: Final = 4
#: These errors mean that the name does not exist or has no address, so that a retry does not help.
_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
)


def system_resolve(host: str, port: int) -> list[str]:
    """Resolve a name with the operating system; return each address once, in the system's order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class BoundedResolver:
    """Runs ``resolve`` in at most ``max_lookups`` threads; callers wait no longer than their scopes last."""

    def __init__(self, resolve: Resolve = system_resolve, max_lookups: int = MAX_LOOKUPS) -> None:
        self._resolve = resolve
        self._free = threading.BoundedSemaphore(max_lookups)
        self._domains = Slots(max(1, max_lookups // DOMAIN_SHARE))

    def look_up(self, host: str, port: int, scope: CancelScope, queue: Queue = "default") -> list[Address | None]:
        """Return a name's addresses in order, with None for each text that is not a plain address.

        Raises:
            FetchFailed: ``dns_failed``; ``fetch_timeout``: the scope's deadline passed first; ``host_unavailable``:
                other look-ups of the domain held all of its slots until the deadline; ``out_of_memory``: the worker
                is short of memory or open files.
            Cancelled: the scope was cancelled.
        """
        domain = ".".join(host.rstrip(".").split(".")[-2:])
        self._domains.take(domain, scope, queue)
        if not self._free.acquire(timeout=scope.left_s):
            self._domains.give_back(domain, queue)
            raise FetchFailed("fetch_timeout", of_host=False)
        found: Future[Sequence[str]] = Future()
        try:
            look_up = threading.Thread(
                target=self._run, args=(host, port, domain, queue, found), name="fetch-dns", daemon=True
            )
            look_up.start()
        except RuntimeError:  # the operating system allows no more threads
            self._give_back(domain, queue)
            message = "the worker is too busy to resolve host names; try again."
            raise FetchFailed("dns_failed", message, of_host=False) from None
        try:
            return [parse_address(text) for text in scope.result_of(found)]
        except TimeoutError:
            raise FetchFailed("fetch_timeout", of_host=False) from None
        except (OSError, UnicodeError) as error:
            if is_shortage(error):
                raise shortage() from None
            again = not (isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME)
            raise FetchFailed("dns_failed", again=again, of_host=False) from None

    def _run(self, host: str, port: int, domain: str, queue: Queue, found: Future[Sequence[str]]) -> None:
        try:
            found.set_result(self._resolve(host, port))
        except BaseException as error:
            # Without a free descriptor the C library cannot read its own files, and reports that no such name exists.
            is_ours = isinstance(error, OSError) and not can_open_files()
            found.set_exception(OSError(errno.EMFILE, os.strerror(errno.EMFILE)) if is_ours else error)
        finally:
            self._give_back(domain, queue)

    def _give_back(self, domain: str, queue: Queue) -> None:
        self._free.release()
        self._domains.give_back(domain, queue)
