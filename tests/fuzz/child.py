"""The process that runs inputs: ``python -m tests.fuzz.child MODULE FOLDER``. `tests.fuzz.runs` watches it.

It ends with 0 when its time is up, and otherwise with its finding: it writes an exception to ``report.txt``, a crash
kills it, and if it hangs the watcher kills it. In each case the file ``progress`` holds the input.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import os
import resource
import time
import traceback
from pathlib import Path
from typing import Final

from tests.fuzz.mutations import inputs
from tests.fuzz.progress import Progress
from tests.fuzz.target import Target

#: How much memory an input may use beyond that of the process after all imports; no target needs a tenth of it.
MEMORY_BYTES: Final = 512 * 1024 * 1024
#: The exit status after an exception; neither Python nor libFuzzer uses it.
FOUND: Final = 10
NEVER_S: Final = 1_000_000


def main() -> None:
    """Fuzz, or run one input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--input", type=Path, help="run only this input")
    parser.add_argument("--blind", action="store_true", help="without Atheris")
    arguments = parser.parse_args()
    faulthandler.enable()
    progress = Progress(arguments.folder / "progress")
    if arguments.input is not None:
        target = load(arguments.module)
        limit_memory()
        attempt(target, arguments.input.read_bytes(), progress, arguments.folder)
        return
    if not arguments.blind:
        with contextlib.suppress(ImportError):
            ends_s = time.monotonic() + arguments.seconds
            guided(arguments.module, arguments.folder, progress, ends_s, arguments.seed)
    target = load(arguments.module)
    ends_s = time.monotonic() + arguments.seconds  # loading takes seconds on a busy machine
    limit_memory()
    for data in inputs(target.seeds(), arguments.seed, target.max_bytes):
        if time.monotonic() > ends_s:
            break
        attempt(target, data, progress, arguments.folder)


def load(module: str) -> Target:
    """Return the target of a module."""
    target = importlib.import_module(module).TARGET
    assert isinstance(target, Target)
    return target


def guided(module: str, folder: Path, progress: Progress, ends_s: float, seed: int) -> None:
    """Let Atheris search for inputs that reach new code; never return."""
    import atheris

    with atheris.instrument_imports(include=["worker", "producer", "PIL", "json"], enable_loader_override=False):
        target = load(module)
    corpus = folder / f"corpus-{seed}"
    corpus.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(data)
    limit_memory()
    options = [
        f"-seed={seed}",
        f"-max_total_time={max(1, round(ends_s - time.monotonic()))}",
        f"-max_len={target.max_bytes}",
        f"-artifact_prefix={folder}/",
        "-verbosity=0",
        "-len_control=0",
        # Signals must kill the process, and this module bounds time and memory itself, with or without Atheris.
        *(f"-handle_{name}=0" for name in ("segv", "abrt", "bus", "fpe", "ill", "int", "term", "xfsz")),
        f"-timeout={NEVER_S}",
        "-rss_limit_mb=0",
    ]

    def try_in_time(data: bytes) -> None:
        if time.monotonic() > ends_s:
            os._exit(0)  # libFuzzer would first run all seeds, however long that takes
        attempt(target, data, progress, folder)

    atheris.Setup(["fuzz", *options, str(corpus)], try_in_time)
    atheris.Fuzz()


def limit_memory() -> None:
    """On Linux, let allocations beyond `MEMORY_BYTES` fail with MemoryError."""
    with contextlib.suppress(FileNotFoundError):
        status = Path("/proc/self/status").read_text()
        used_bytes = 1024 * int(status.split("VmData:")[1].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (used_bytes + MEMORY_BYTES,) * 2)


def attempt(target: Target, data: bytes, progress: Progress, folder: Path) -> None:
    """Run one input; any exception ends this process."""
    progress.begin(data)
    try:
        if target.run(data):
            progress.judged()
    except BaseException:
        (folder / "report.txt").write_text(traceback.format_exc())
        os._exit(FOUND)


if __name__ == "__main__":
    main()
