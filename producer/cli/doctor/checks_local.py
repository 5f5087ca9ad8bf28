"""What the doctor finds on this machine, without loading a model: versions, settings, checkpoint, GPU."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from producer.cli.connection import is_configured
from producer.cli.doctor.findings import Finding
from producer.errors import NameshotError
from producer.settings import PREFIX, ProducerSettings, read_settings

if TYPE_CHECKING:
    from producer.embedded.home import UpInfo

#: nvidia-smi answers in a second, or hangs with a broken driver.
_SMI_TIMEOUT_S: Final = 10.0


def installation() -> Iterator[Finding]:
    """The versions that a bug report needs."""
    parts = ["nameshot", "celery", "redis"] + ["torch", "transformers"] * has_worker()
    versions = ", ".join(f"{part} {_version(part)}" for part in parts)
    yield Finding("versions", "ok", f"Python {platform.python_version()}, {versions}")


def embedded(up: UpInfo | None) -> Iterator[Finding]:
    """Whether `nameshot up` runs, and whether commands use it."""
    from producer.embedded.home import data_folder, running_up

    running = running_up()
    if up is not None:
        yield Finding("nameshot up", "ok", f"process {up.pid}, {up.url}, data in {data_folder()}; commands use it")
    elif running is not None and is_configured():
        yield Finding(
            "nameshot up",
            "ok",
            f"process {running.pid} runs, but the environment names another Redis, which commands use instead",
        )


def environment() -> Iterator[Finding]:
    """The ``NAMESHOT_…`` variables: each one known, each one possible."""
    kind: type[ProducerSettings] = ProducerSettings
    if has_worker():
        kind = import_module("worker.settings").WorkerSettings
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    known = {PREFIX + field.upper() for field in kind.model_fields}
    unknown = [name for name in given if name not in known]
    try:
        settings = read_settings(kind)
        if has_worker():
            import_module("worker.service").fetch_rules(settings)
    except NameshotError as error:
        yield Finding("settings", "broken", str(error), "correct the variable")
        return
    if unknown and has_worker():
        yield Finding("settings", "warning", f"no setting is called {', '.join(unknown)}", "check the spelling")
    else:
        yield Finding("settings", "ok", f"from the environment: {', '.join(given) or 'none, all are defaults'}")


def model(up: UpInfo | None) -> Iterator[Finding]:
    """The checkpoint that a worker started here would load."""
    if up is not None:
        yield Finding("model", "ok", f"{up.model}, in `nameshot up`")
        return
    if not has_worker():
        yield Finding("model", "ok", "the worker's part is not installed here; jobs are sent to workers elsewhere")
        return
    try:
        settings = read_settings(import_module("worker.settings").WorkerSettings)
    except NameshotError:
        return  # `environment` has said it
    name, revision = settings.model, settings.revision
    folder = _bundled_folder() if name == "bundled" else Path(name).expanduser()
    if folder.is_dir() or name == "bundled":
        if (folder / "config.json").is_file():
            yield Finding("model", "ok", f"{name}, a folder on this machine")
        else:
            yield Finding("model", "broken", f"the folder {folder} holds no config.json", "set NAMESHOT_MODEL")
        return
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except HFValidationError:
        yield Finding("model", "broken", f"{name!r} is neither a folder nor a Hub id", "correct NAMESHOT_MODEL")
        return
    where = "in this machine's cache" if cached else "not in this machine's cache; the worker downloads it at its start"
    yield Finding("model", "ok", f"{name}, {where}")


def device(*, deep: bool) -> Iterator[Finding]:
    """What a worker here would run on; torch, which loads in seconds, is asked where a GPU shows or with ``deep``."""
    if not has_worker():
        return
    wanted = os.environ.get("NAMESHOT_DEVICE", "auto")
    sign: str | None = import_module("worker.model.nvidia").sign_of_nvidia()
    if wanted == "cpu" and sign:
        yield Finding("device", "ok", f"{_shown(sign)}, and not used: NAMESHOT_DEVICE is cpu")
    elif deep or sign or wanted.startswith("cuda"):
        yield _torch_device(wanted, sign)
    else:
        yield Finding("device", "ok", "no NVIDIA GPU here: the CPU is used")


def has_worker() -> bool:
    """Whether a worker can run from this installation."""
    return all(find_spec(module) is not None for module in ("worker", "celery", "torch", "transformers"))


def _torch_device(wanted: str, sign: str | None) -> Finding:
    """What a worker's own choice comes to; it refuses what it cannot use, and says why."""
    try:
        chosen = import_module("worker.model.devices").pick_device(wanted)
    except import_module("worker.model.interface").ModelError as error:
        return Finding("device", "broken", f"{error}", _cuda_build_advice())
    gpus = f"{_shown(sign)}; " if sign else ""
    return Finding("device", "ok", f"{gpus}a worker here runs on {chosen} (NAMESHOT_DEVICE is {wanted})")


def _cuda_build_advice() -> str:
    if "+cpu" not in _version("torch"):
        return ""
    return f"this torch ({_version('torch')}) is a build for the CPU: install torch's CUDA build"


def _shown(sign: str) -> str:
    """The GPUs as the driver names them; where it names none, what shows that one is here."""
    return ", ".join(_driver_gpus()) or sign


def _driver_gpus() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        answer = subprocess.run(  # noqa: S603 - nothing of it comes from a user
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _bundled_folder() -> Path:
    spec = find_spec("worker")
    if spec is None or spec.origin is None:
        return Path("worker/bundled")
    return Path(spec.origin).with_name("bundled") / "emoji-clip"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"
