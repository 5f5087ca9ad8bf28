"""The pinned versions, and the bounds for installations without the pins."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
#: Older versions of these libraries, which read foreign responses and files, have known vulnerabilities.
FLOORS = {
    "urllib3": "2.6.3",  # CVE-2025-66418, CVE-2025-66471, CVE-2026-21441: compressed bodies without bounds
    "requests": "2.32.2",  # CVE-2024-35195, and the adapters of the release that fixed it
    "pillow": "12.3",  # CVE-2026-40192, CVE-2026-42311, and loops in parsers: memory and time beyond the image's
}


def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pair[1]): Version(pair[2]) for pair in pairs if pair}


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def test_every_line_of_the_constraints_pins_one_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

    assert len(pinned()) == len(lines)


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_every_declared_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert pinned()[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_no_vulnerable_version_is_pinned_or_permitted(name: str, floor: str) -> None:
    requirements = [requirement for requirement in declared() if requirement.name == name]

    assert pinned()[name] >= Version(floor)
    assert requirements
    for requirement in requirements:
        bounds = [Version(bound.version) for bound in requirement.specifier if bound.operator == ">="]
        assert bounds
        assert max(bounds) >= Version(floor)


def test_the_wheel_is_built_with_the_pinned_version_of_hatchling() -> None:
    (required,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]

    assert required == f"hatchling=={pinned()['hatchling']}"
