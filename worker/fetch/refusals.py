"""The failures of URLs that `worker.fetch.url_policy` refuses; each message names all that has to change.

Clients see every message, so no message contains a URL, host, address or port.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.fetch.failures import FetchFailed


def local_name() -> FetchFailed:
    """Return the failure for a name that no public host has."""
    return FetchFailed(
        "invalid_url",
        "the image URL's host is a local or reserved name; use a public host name, "
        "or add an exception to NAMESHOT_FETCH_ALLOW for its address and port.",
    )


def bad_host(refusal: Callable[[], FetchFailed] | None) -> FetchFailed:
    """Return the failure for a host outside NAMESHOT_FETCH_HOSTS; its message names another broken rule, if any."""
    also = ""
    if refusal is bad_port:
        also = " The port, too, is outside NAMESHOT_FETCH_PORTS."
    elif refusal is not None:
        also = " The host, too, is not public: its address and port need an exception in NAMESHOT_FETCH_ALLOW."
    return FetchFailed("host_not_allowed", f"the host is outside NAMESHOT_FETCH_HOSTS; use an allowed host.{also}")


def bad_port() -> FetchFailed:
    """Return the failure for a port outside NAMESHOT_FETCH_PORTS."""
    return FetchFailed("port_not_allowed")


def bad_port_of_blocked() -> FetchFailed:
    """Return the failure for a port outside NAMESHOT_FETCH_PORTS if the address is not public either."""
    return FetchFailed(
        "port_not_allowed",
        "the URL names a port outside NAMESHOT_FETCH_PORTS, and an address that is not public; "
        "an exception in NAMESHOT_FETCH_ALLOW for this address and port allows both.",
    )


def blocked() -> FetchFailed:
    """Return the failure for an address that is not public."""
    return FetchFailed("address_blocked")


def invalid(message: str | None = None) -> FetchFailed:
    """Return the failure for a text that is not a plain URL."""
    return FetchFailed("invalid_url", message)
