"""A model runs on the machine's GPU, on the CPU if there is none, and never on the CPU by accident."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from worker.model import load_model
from worker.model.devices import pick_device
from worker.model.interface import ModelLoadError
from worker.model.nvidia import sign_of_nvidia

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use the GPU here")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder for the PATH and one for device files, as on a machine without a GPU."""
    programs, devices = tmp_path / "bin", tmp_path / "dev"
    programs.mkdir()
    devices.mkdir()
    (devices / "null").touch()
    return programs, devices


def add_tool(programs: Path) -> None:
    tool = programs / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB'\n")
    tool.chmod(0o755)


def sign(folders: tuple[Path, Path], **environment: str) -> str | None:
    return sign_of_nvidia({"PATH": str(folders[0]), **environment}, folders[1])


def test_a_machine_without_a_gpu_shows_no_sign_of_one(folders: tuple[Path, Path]) -> None:
    assert sign(folders) is None


def test_nvidia_smi_or_a_device_file_is_a_sign_of_a_gpu(folders: tuple[Path, Path]) -> None:
    add_tool(folders[0])
    assert sign(folders) == "nvidia-smi is installed here"

    (folders[1] / "nvidiactl").touch()
    assert sign(folders) == f"{folders[1]}/nvidiactl is here"


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_process_from_which_cuda_visible_devices_hides_all_gpus_has_none(
    visible: str, folders: tuple[Path, Path]
) -> None:
    add_tool(folders[0])
    (folders[1] / "nvidia0").touch()

    assert sign(folders, CUDA_VISIBLE_DEVICES=visible) is None
    assert sign(folders, CUDA_VISIBLE_DEVICES="0") is not None


@without_cuda
def test_without_a_sign_of_a_gpu_the_cpu_is_used() -> None:
    assert pick_device("auto", lambda: None) == torch.device("cpu")


@without_cuda
def test_a_gpu_that_pytorch_cannot_use_is_an_error_unless_the_cpu_is_set() -> None:
    def here() -> str:
        return "/dev/nvidia0 is here"

    with pytest.raises(ModelLoadError) as refused:
        pick_device("auto", here)
    sentence = str(refused.value)
    assert "/dev/nvidia0 is here, but PyTorch" in sentence
    assert "NAMESHOT_DEVICE=cpu" in sentence
    assert "\n" not in sentence
    assert pick_device("cpu", here) == torch.device("cpu")


def ended(program: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a worker or an engine that cannot start, and return how it ended."""
    visible = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=ROOT,
        env={**visible, "NAMESHOT_MODEL": "bundled", "NAMESHOT_METRICS_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@without_cuda
@pytest.mark.parametrize("program", ["worker", "worker.engine_process"])
def test_a_worker_or_engine_beside_a_gpu_that_pytorch_cannot_use_ends_with_78(
    program: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    add_tool(folders[0])
    socket = [str(tmp_path / "engine")] if program == "worker.engine_process" else []

    done = ended(program, *socket, PATH=f"{folders[0]}:{os.environ['PATH']}")

    assert done.returncode == os.EX_CONFIG, done.stderr
    assert "nvidia-smi is installed here, but PyTorch" in done.stderr
    assert "NAMESHOT_DEVICE=cpu" in done.stderr


@without_cuda
def test_an_engine_whose_predecessor_lost_its_gpu_does_not_take_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "engine-gpu").write_text("cuda:0")  # as an engine process that died leaves it

    done = ended("worker.engine_process", str(tmp_path / "engine"), CUDA_VISIBLE_DEVICES="")

    assert done.returncode == os.EX_CONFIG, done.stderr
    assert "device 'cuda:0' was requested, but PyTorch" in done.stderr


def test_float32_is_computed_in_float32(checkpoint: Callable[[str], Path], device: str) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    load_model(str(checkpoint("clip")), device=device, dtype="float32")

    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    # Digits that TF32 would drop survive a convolution and a product.
    value = torch.full((16, 16, 16, 16), 1 + 2**-12, device=device)
    ones = torch.eye(16, device=device)
    assert torch.nn.functional.conv2d(value, ones[..., None, None]).max().item() == 1 + 2**-12
    assert (value[0, 0] @ ones).max().item() == 1 + 2**-12
