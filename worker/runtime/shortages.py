"""What a machine or a container may run short of: open files, threads, memory."""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

from producer.errors import SettingsError

#: Errors of the operating system that say that this process, or its machine, has no more of something.
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
#: The files that an idle worker has open: libraries, logs, both Redis connections and their pools, probes, decoders.
_IDLE_FILES: Final = 100


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that the process has no memory, threads or open files left, whatever it works on."""
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


def allow_open_files(images: int) -> None:
    """Raise this process's limit of open files as far as the system permits.

    Args:
        images: the images in flight. Each may have a connection open, and another one idle in the pool.

    Raises:
        SettingsError: the system permits too few for so many images.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * images + _IDLE_FILES
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    if max(soft, hard) < needed:
        raise SettingsError(
            f"{images:,} images in flight (NAMESHOT_CONCURRENCY) take up to {needed:,} open files, and this system "
            f"permits {hard:,}: raise its limit (ulimit -Hn, LimitNOFILE=) or lower NAMESHOT_CONCURRENCY."
        )
