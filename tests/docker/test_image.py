"""What the Dockerfile ensures, and which files of this folder the build sees."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

Instruction = tuple[str, str]


@pytest.fixture
def stages(root: Path) -> list[list[Instruction]]:
    """The Dockerfile's stages, each a list of (instruction, arguments), without the lines before the first stage."""
    text = re.sub(r"^#.*\n", "", (root / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(str.strip, text.splitlines()):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, " ".join(arguments.split())))
    return found


@pytest.fixture
def image(stages: list[list[Instruction]]) -> list[Instruction]:
    """The last stage, which a container runs."""
    return stages[-1]


def only(instructions: Sequence[Instruction], name: str) -> str:
    """Return the arguments of the only instruction with this name."""
    (arguments,) = [arguments for found, arguments in instructions if found == name]
    return arguments


def copied(stages: list[list[Instruction]]) -> set[str]:
    """Return the files and folders that the Dockerfile copies from this folder."""
    return {
        source
        for stage in stages
        for name, arguments in stage
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }


def test_the_environment_has_the_pinned_versions(stages: list[list[Instruction]]) -> None:
    builder, image = stages

    assert "pip install" in only(builder, "RUN")
    assert "--constraint constraints.txt" in only(builder, "RUN")
    assert "--editable '.[worker]'" in only(builder, "RUN")
    assert not [arguments for _, arguments in image if "pip install" in arguments]


def test_the_image_runs_as_a_numeric_user_other_than_root(image: list[Instruction]) -> None:
    user, group = only(image, "USER").split(":")

    assert int(user) > 0
    assert int(group) > 0


def test_the_user_can_write_to_the_mount_point_of_the_checkpoints_volume(image: list[Instruction]) -> None:
    user, group = only(image, "USER").split(":")

    assert "HF_HOME=/models" in only(image, "ENV")
    made = [arguments for name, arguments in image if name == "RUN" and "/models" in arguments]
    assert f"install --directory --owner {user} --group {group} /models" in made[0]


def test_the_image_starts_a_worker_and_can_run_every_other_command(image: list[Instruction]) -> None:
    assert only(image, "ENTRYPOINT") == '["nameshot"]'
    assert only(image, "CMD") == '["worker"]'
    assert only(image, "STOPSIGNAL") == "SIGTERM"


def test_both_stages_use_the_same_supported_python(stages: list[list[Instruction]], root: Path) -> None:
    builder, image = stages
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    version = re.search(r"^ARG PYTHON_VERSION=(\d+)\.(\d+)$", (root / "Dockerfile").read_text(), re.MULTILINE)
    oldest = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])

    assert only(builder, "FROM") == f"{only(image, 'FROM')} AS builder" == "python:${PYTHON_VERSION}-slim AS builder"
    assert version
    assert oldest
    assert tuple(map(int, version.groups())) >= tuple(map(int, oldest.groups()))


def test_the_build_sees_only_what_it_copies(stages: list[list[Instruction]], root: Path) -> None:
    everything, *exceptions = [
        line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]

    assert everything == "*"
    assert {line.removeprefix("!") for line in exceptions if line.startswith("!")} == copied(stages)
    assert "**/__pycache__" in exceptions


def test_everything_that_the_build_copies_exists(stages: list[list[Instruction]], root: Path) -> None:
    assert copied(stages) == {
        *("pyproject.toml", "constraints.txt", "LICENSE", "NOTICE", "nameshot", "producer", "worker")
    }
    assert [source for source in copied(stages) if not (root / source).exists()] == []


def test_a_driver_too_old_for_torch_is_refused_and_the_requirement_can_be_lowered(
    image: list[Instruction],
) -> None:
    (default,) = [arguments for name, arguments in image if name == "ARG"]

    assert default == 'NVIDIA_REQUIRE_CUDA="cuda>=13.0"'
    assert "NVIDIA_REQUIRE_CUDA=$NVIDIA_REQUIRE_CUDA" in only(image, "ENV").split()
