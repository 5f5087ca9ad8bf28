"""Detects shortages of memory, threads and open files, and raises the limit of open files."""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

from producer.errors import SettingsError

#: The errors with which the kernel says that this process, or its machine, has no open files or memory left.
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
#: The files that an idle worker has open, and some to spare: libraries, logs, probes, decoders, look-ups of names, the
#: event loop's connections to Redis.
_IDLE_FILES: Final = 100
#: A connection to an image's host takes two descriptors: its socket, and the duplicate that the deadline shuts down.
_FILES_PER_DOWNLOAD: Final = 2
#: Each image in flight may have a connection in the pools for the answers, for the broker and for the shared cache. The
#: pools keep idle connections, so these come on top of the downloads.
_REDIS_POOLS: Final = 3


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that the process has no memory, threads or open files left."""
    if isinstance(error, OSError):
        return error.errno in _SHORTAGES
    if isinstance(error, RuntimeError):  # the module threading has no class of its own for this
        return "can't start new thread" in str(error)
    return isinstance(error, MemoryError)


def can_open_files() -> bool:
    """Return whether this process can open one more file at this moment."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return not is_shortage(error)
    return True


def files_needed(images: int, idle_downloads: int) -> int:
    """Return the largest number of files that a worker may have open at once.

    Args:
        images: the images in flight.
        idle_downloads: the connections to images' hosts that the worker keeps for further downloads.
    """
    return _FILES_PER_DOWNLOAD * (images + idle_downloads) + _REDIS_POOLS * images + _IDLE_FILES


def allow_open_files(images: int, idle_downloads: int) -> None:
    """Raise this process's limit of open files as far as the system permits; for the arguments see `files_needed`.

    Raises:
        SettingsError: the system permits too few open files for so many images.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(images, idle_downloads)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    if max(soft, hard) < needed:
        raise SettingsError(
            f"{images:,} images in flight (NAMESHOT_CONCURRENCY) need up to {needed:,} open files, but this system "
            f"permits {hard:,}: raise its limit (ulimit -Hn, LimitNOFILE=) or lower NAMESHOT_CONCURRENCY."
        )
