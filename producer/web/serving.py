"""Run the HTTP front with uvicorn, in one process or several, until a signal ends it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from ipaddress import ip_address
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from producer.client.configuration import configure
from producer.errors import NameshotError, SettingsError
from producer.settings import read_settings
from producer.web.app import create
from producer.web.front import ring_of
from producer.web.logs import set_up_logging
from producer.web.settings import WebSettings, listed

#: Responses that are under way when the server ends have this long.
DRAIN_TIMEOUT_S: Final = 10
#: Longer than proxies keep an idle connection (nginx: 60 s), so that the proxy closes it and never uses a closed one.
KEEP_ALIVE_S: Final = 75
_BACKLOG: Final = 2048


def serve(host: str, port: int, processes: int) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Raises:
        NameshotError: the port cannot be used.
    """
    try:
        settings = read_settings(WebSettings)
        configure()
        ring = ring_of(settings)
    except SettingsError as error:
        return _refuse(str(error))
    is_near = is_loopback(host)
    if not is_near and ring is None:
        if not settings.web_open:
            return _refuse(
                f"{host} is not a loopback address and no API key is needed, so anyone who reaches it could submit "
                "jobs; set NAMESHOT_WEB_KEYS_FILE, or NAMESHOT_WEB_OPEN=1 where only trusted programs reach it."
            )
        print(f"nameshot: warning: anyone who reaches {host} can submit jobs (NAMESHOT_WEB_OPEN).", file=sys.stderr)
    proxies = list(listed(settings.web_trusted_proxies))
    config = uvicorn.Config(
        partial(_application, is_loopback=is_near),
        factory=True,
        workers=processes,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=_BACKLOG,
    )
    with _listening(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        print(f"Serving on http://{address}:{listener.getsockname()[1]}", flush=True)
        set_up_logging(settings.log_level, settings.log_format)
        if processes > 1:
            Multiprocess(config, [listener]).run()
            return 0
        server = uvicorn.Server(config)
        # uvicorn raises the signal again once it has ended in order, which is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        server.run([listener])
        return 0 if server.started else 1


def _application(*, is_loopback: bool) -> ASGIApp:
    """Return the application; each process calls this, so it also sets up the process's log."""
    settings = read_settings(WebSettings)
    set_up_logging(settings.log_level, settings.log_format)
    return create(settings, is_loopback=is_loopback)


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a server that listens on this host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name TCP; without it, each response would wait 40 ms for the
    # acknowledgement of its headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise NameshotError(f"the address {host}, port {port}, cannot be used: {error.strerror or error}.") from None
    return listener


def _refuse(sentence: str) -> int:
    """Say why the settings cannot be used; the status tells supervisors that a restart does not help."""
    print(f"nameshot: {sentence}", file=sys.stderr)
    return os.EX_CONFIG
