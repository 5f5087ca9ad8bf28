"""Which Redis a command talks to: the environment's, else that of this user's running `nameshot up`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from producer.cli.usage import UsageError
from producer.contract import check_url_shape
from producer.errors import InvalidJob

if TYPE_CHECKING:
    from producer.client.blocking import Client
    from producer.client.configuration import Configuration
    from producer.embedded.home import UpInfo


def is_configured() -> bool:
    """Whether the environment says where Redis is."""
    return "NAMESHOT_BROKER_URL" in os.environ or "NAMESHOT_RESULT_BACKEND" in os.environ


def running_system() -> UpInfo | None:
    """The running `nameshot up` that commands talk to, unless the environment names another Redis."""
    if is_configured():
        return None
    from producer.embedded.home import running_up

    return running_up()


def connect() -> Client:
    """A client for the Redis that this command talks to; it connects when it is used."""
    from producer.client.blocking import Client

    broker_url, result_backend, queue_prefix = _redis()
    return Client(broker_url, result_backend, queue_prefix=queue_prefix)


def configuration() -> Configuration:
    """What `connect` would use, for commands that do what no client does."""
    from producer.client.configuration import configure

    broker_url, result_backend, queue_prefix = _redis()
    return configure(
        broker_url=broker_url,
        result_backend=result_backend,
        queue_prefix=queue_prefix,
        result_ttl=None,
        max_queue=None,
    )


def _redis() -> tuple[str | None, str | None, str | None]:
    """Broker, result backend and queue prefix; None leaves one to the environment."""
    if (up := running_system()) is None:
        return None, None, None
    return up.broker_url, up.result_backend, os.environ.get("NAMESHOT_QUEUE_PREFIX", up.queue_prefix)


def image_url(image: str) -> str:
    """What a worker is sent for an image the user named: a URL as it is, a local file as the URL that serves it.

    Raises:
        UsageError: neither an http(s) URL nor a file that can be served.
    """
    if "://" in image:
        try:
            return check_url_shape(image)
        except InvalidJob as error:
            raise UsageError(str(error)) from None
    from pathlib import Path

    path = Path(image)
    if not path.is_file():
        raise UsageError(f"{image!r} is neither an http(s):// URL nor a file.")
    up = running_system()
    if up is None:
        raise UsageError(
            f"{image!r} is a local file, and a worker reads only http(s):// URLs; "
            "run `nameshot up` in another terminal (with no NAMESHOT_BROKER_URL set here), or give a URL."
        )
    from producer.embedded.pictures import file_url

    try:
        with path.open("rb"):
            return file_url(up.url, up.file_secret, path)
    except OSError as error:
        raise UsageError(f"{image!r} cannot be read: {error.strerror}.") from None
