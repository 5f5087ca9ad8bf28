"""Which processes drive the devices of a machine where each device has an engine process and several fronts."""

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

#: Of a Unix socket's path, with its final zero: 108 on Linux (unix(7)).
_MAX_PATH_BYTES: Final = 107


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to be kept running.

    Attributes:
        name: what messages call it.
        environment: all of it.
        gives_signs_of_life: on a descriptor that its command has as a further argument.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    gives_signs_of_life: bool = False


class Fronts:
    """Each of several processes says by a file of its own whether it takes jobs."""

    def __init__(self) -> None:
        self._files: list[Path] = []

    def ready_file(self, path: Path) -> Mapping[str, str]:
        """The environment of one of them."""
        self._files.append(path)
        return {"NAMESHOT_READY_FILE": str(path)}

    def are_ready(self) -> bool:
        """Whether each takes jobs."""
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
    """The processes of all devices, engines first.

    Args:
        devices: values of ``NAMESHOT_DEVICE``; empty where the environment's stands.
        processes: fronts for each device.
        folder: for sockets; nobody else may enter it.
        fronts: learns of each front.
        front: a front's command; it gets its engine's socket and the number of its fronts.
        engine: an engine's command; it gets its socket, and the launcher adds a descriptor for its signs of life.
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
                    # The device is the engine's: whatever a library does, no context of a front is on it.
                    "CUDA_VISIBLE_DEVICES": "",
                },
            )


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of this user's alone.

    Raises:
        SettingsError: sockets cannot be in it, or this system lacks what the processes share.
    """
    if not hasattr(os, "memfd_create"):
        raise SettingsError("--processes needs Linux, whose shared memory has no names; leave it out.")
    try:
        folder = Path(tempfile.mkdtemp(prefix="nameshot-"))
    except OSError as error:
        raise SettingsError(
            f"--processes needs a folder for sockets, and none can be made ({error.strerror}); name one by TMPDIR."
        ) from None
    try:
        if len(os.fsencode(folder / "engine-999")) > _MAX_PATH_BYTES:
            raise SettingsError(f"TMPDIR {tempfile.gettempdir()!r} is too long for a socket in it; name a shorter one.")
        yield folder
    finally:
        # The last engine may have removed it.
        shutil.rmtree(folder, ignore_errors=True)
