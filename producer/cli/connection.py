"""Choose the Redis of a command: the one in the environment, or that of the user's `nameshot up`, or the default."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from producer.contract.image_url import check_url_shape
from producer.errors import EmbeddedError, InvalidJob, UsageError

_REDIS_VARIABLES: Final = ("NAMESHOT_BROKER_URL", "NAMESHOT_RESULT_BACKEND")
#: No sensible path is longer.
_MOST_SHOWN: Final = 200

if TYPE_CHECKING:
    from pathlib import Path

    from producer.broker.connections import BlockingLink
    from producer.client.blocking import Client
    from producer.client.configuration import Configuration
    from producer.embedded.home import UpInfo


def is_configured() -> bool:
    """Return whether the environment names a Redis."""
    return any(name in os.environ for name in _REDIS_VARIABLES)


def names_its_redis(up: UpInfo) -> bool:
    """Return whether the environment names the servers of this `nameshot up`, as ``nameshot env`` prints them."""
    return _named_redis() == (up.broker_url, up.result_backend)


def _named_redis() -> tuple[str | None, ...]:
    return tuple(map(os.environ.get, _REDIS_VARIABLES))


def running_system() -> UpInfo | None:
    """Return the user's running `nameshot up`; None if there is none or the environment names another Redis."""
    from producer.embedded.home import running_up

    up = running_up()
    return up if up is not None and (not is_configured() or names_its_redis(up)) else None


def absent_system() -> str | None:
    """Return, as a clause, why this user's `nameshot up` does not serve the command although the command expects it.

    Return None if a `nameshot up` is running, or if the environment names another Redis. If the environment names no
    Redis, return None too, unless a `nameshot up` is starting or stopping.
    """
    from producer.embedded.home import data_folder, is_held, running_up
    from producer.embedded.kept import Kept

    try:
        folder = data_folder()
    except EmbeddedError:
        return None
    if running_up(folder) is not None or (is_configured() and _named_redis() != Kept.read(folder).urls):
        return None
    if is_held(folder):
        return "`nameshot up` is still loading or about to stop, so try again in a moment"
    return "`nameshot up` is not running, so start it in another terminal" if is_configured() else None


def connect() -> Client:
    """Return a client for this command's Redis; the client connects when it is first used."""
    from producer.client.blocking import Client

    return Client(**redis_of(running_system()))


@contextlib.contextmanager
def link_to_redis() -> Iterator[tuple[BlockingLink, Configuration]]:
    """Yield a link to the Redis of `connect`, and the configuration, for commands that need more than a client."""
    from producer.broker.connections import BlockingLink
    from producer.client.configuration import configure

    config = configure(**redis_of(running_system()))
    with contextlib.closing(BlockingLink(config.broker, config.results)) as link:
        yield link, config


def redis_of(up: UpInfo | None) -> dict[str, Any]:
    """Return the arguments with which `Client` and `configure` use this `nameshot up`.

    If ``up`` is None, return an empty dictionary, so that they read the environment.
    """
    if up is None:
        return {}
    prefix = os.environ.get("NAMESHOT_QUEUE_PREFIX", up.queue_prefix)
    return {"broker_url": up.broker_url, "result_backend": up.result_backend, "queue_prefix": prefix}


def image_url(image: str, up: UpInfo | None) -> str:
    """Return the URL to send to a worker: a URL unchanged, or that under which this `nameshot up` serves a local file.

    Raises:
        UsageError: ``image`` is neither an http(s) URL nor a file that can be served.
    """
    if "://" in image:
        try:
            return check_url_shape(image)
        except InvalidJob as error:
            raise UsageError(str(error)) from None
    from pathlib import Path

    path = Path(image)
    if not _is_utf8(image):
        raise UsageError(f"the file name {_shown(image)} is not UTF-8 text; rename the file.")
    if not _is_file(path):
        raise UsageError(f"{_shown(image)} is neither an http(s):// URL nor a file.")
    if up is None:
        raise UsageError(
            f"{_shown(image)} is a local file, and a worker fetches only http(s):// URLs; {_how_to_serve()}, or give a "
            "URL."
        )
    from producer.embedded.pictures import file_url

    try:
        with path.open("rb"):
            return file_url(up.url, up.file_secret, path)
    except OSError as error:
        raise UsageError(f"{_shown(image)} cannot be read: {error.strerror}.") from None


def _how_to_serve() -> str:
    """Return, as a clause, what the user must do so that a `nameshot up` serves local files to this command."""
    from producer.embedded.home import running_up

    if (why := absent_system()) is not None:
        return why
    if not is_configured():
        return "run `nameshot up` in another terminal"
    unset = f"`unset {' '.join(name for name in _REDIS_VARIABLES if name in os.environ)}`"
    if running_up() is None:
        return f"run `nameshot up` in another terminal, and in this one {unset}"
    return f"the environment names another Redis than that of the running `nameshot up`, so {unset}"


def _is_utf8(name: str) -> bool:
    """Return whether a name is UTF-8; Python decodes other bytes of an argument or a folder to lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file(path: Path) -> bool:
    """Return whether there is a file; False for a path that the system refuses, such as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _shown(image: str) -> str:
    """Return a path as a message shows it, shortened, because a data: URL can have megabytes."""
    return repr(image if len(image) <= _MOST_SHOWN else f"{image[:_MOST_SHOWN]}…")
