"""``nameshot serve`` and ``nameshot keys``: the HTTP API and its keys."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from producer.errors import NameshotError

DEFAULT_PORT: Final = 8000
#: The maximum number of processes; each holds connections to Redis.
MAX_PROCESSES: Final = 64

keys_app = typer.Typer(help="Make keys for the HTTP API.", no_args_is_help=True)


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.", metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port to listen on; 0 selects any free port.")
    ] = DEFAULT_PORT,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=MAX_PROCESSES, help="Number of processes.", metavar="N")
    ] = 1,
) -> int:
    """Serve the HTTP API with the environment's settings until SIGTERM or Ctrl-C.

    Any number of servers may serve the same queues. On an address that is not loopback, the API needs keys:
    NAMESHOT_WEB_KEYS_FILE names a file of lines that `nameshot keys new` prints.
    """
    from importlib.util import find_spec

    for module in ("fastapi", "uvicorn", "httptools", "prometheus_client"):
        if find_spec(module) is None:
            raise NameshotError(
                f"the HTTP API is not installed ({module} is missing); install it from the project's folder with "
                "`pip install '.[web]'`."
            )
    from producer.web.serving import serve as run

    return run(host, port, processes)


@keys_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="For whom or what the key is; it is stored in the line.", metavar="NAME")],
) -> int:
    """Make a key, and print it and its line of the keys file once.

    Standard output gets the line, so that it can be appended to the file; standard error gets the key, which is stored
    nowhere.
    """
    from producer.web.keys import line_of, new_key

    key, entry = new_key(name)
    print(f"key: {key}", file=sys.stderr)
    print(line_of(entry))
    return 0
