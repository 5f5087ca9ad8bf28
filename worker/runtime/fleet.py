"""Lists the processes of a machine where each device has an engine process and several fronts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producer.errors import SettingsError

#: Linux limits a Unix socket's path to 108 bytes, including the final zero (unix(7)).
_MAX_PATH_BYTES: Final = 107


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to keep running.

    Attributes:
        name: its name in messages.
        command: its command line.
        environment: its whole environment.
        gives_signs_of_life: whether it sends heartbeats, on a descriptor that the launcher appends to the command.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    gives_signs_of_life: bool = False


class Fronts:
    """The ready files of several fronts, one each, which exist while a front takes jobs."""

    def __init__(self) -> None:
        self._files: list[Path] = []

    def ready_file(self, path: Path) -> Mapping[str, str]:
        """Register a front's ready file and return the environment variable for it."""
        self._files.append(path)
        return {"NAMESHOT_READY_FILE": str(path)}

    def are_ready(self) -> bool:
        """Whether all fronts take jobs."""
        return all(file.exists() for file in self._files)


def engine_and_fronts(
    devices: Sequence[str],
    processes: int,
    folder: Path,
    fronts: Fronts,
    *,
    front: Sequence[str],
    engine: Sequence[str],
) -> Iterator[ProcessSpec]:
    """Yield the processes of all devices, engines first.

    Args:
        devices: values of ``NAMESHOT_DEVICE``; an empty one leaves the variable as it is.
        processes: fronts per device.
        folder: the sockets' folder, which other users may not enter.
        fronts: registers each front's ready file.
        front: a front's command; its engine's socket and the number of fronts are appended.
        engine: an engine's command; its socket is appended, and by the launcher a descriptor for heartbeats.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NAMESHOT_READY_FILE"}
    where = {device: f" on {device}" if len(devices) > 1 else "" for device in devices}
    sockets = {device: folder / f"engine-{number}" for number, device in enumerate(devices)}
    for device in devices:
        own = {"NAMESHOT_DEVICE": device} if device else {}
        yield ProcessSpec(f"the engine{where[device]}", [*engine, str(sockets[device])], {**environment, **own}, True)
    for device in devices:
        for number in range(1, processes + 1):
            yield ProcessSpec(
                f"front {number}{where[device]}",
                [*front, str(sockets[device]), str(processes)],
                {
                    **environment,
                    **fronts.ready_file(folder / f"{sockets[device].name}-front-{number}-ready"),
                    # No library of a front can create a context on the device, which belongs to the engine.
                    "CUDA_VISIBLE_DEVICES": "",
                },
            )


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a folder that only this user may enter, for the time of the context.

    Raises:
        SettingsError: the folder cannot hold sockets, or this system lacks anonymous shared memory.
    """
    if not hasattr(os, "memfd_create"):
        raise SettingsError("--processes needs Linux's anonymous shared memory; leave it out.")
    try:
        folder = Path(tempfile.mkdtemp(prefix="nameshot-"))
    except OSError as error:
        raise SettingsError(
            f"--processes needs a folder for sockets, and none can be created ({error.strerror}); name one by TMPDIR."
        ) from None
    try:
        if len(os.fsencode(folder / "engine-999")) > _MAX_PATH_BYTES:
            raise SettingsError(f"TMPDIR {tempfile.gettempdir()!r} is too long for a socket in it; name a shorter one.")
        yield folder
    finally:
        # The last engine may have removed it.
        shutil.rmtree(folder, ignore_errors=True)
