"""The site that `make docs` builds: every page is in its navigation, and the reference holds every public name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer import public
from tests.docs.tables import DOCS, ROOT


def configuration() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return loaded


def navigation(entries: list[Any]) -> list[str]:
    """Yield the pages of a navigation, including those of its sections."""
    pages: list[str] = []
    for entry in entries:
        for below in entry.values():
            pages += navigation(below) if isinstance(below, list) else [below]
    return pages


def test_every_page_is_in_the_navigation() -> None:
    pages = navigation(configuration()["nav"])

    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} <= set(pages)
    for page in pages:
        assert (ROOT / page).is_file(), page


def test_the_makefile_copies_every_page_of_the_navigation() -> None:
    copied = re.search(r"^PAGES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert copied
    names = set(copied[1].replace("\\", "").split())

    for page in navigation(configuration()["nav"]):
        assert {page, Path(page).parts[0]} & names, page


def test_the_reference_holds_every_public_name() -> None:
    shown = re.findall(r"^::: nameshot\.(\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)

    assert sorted(shown) == sorted(public.__all__)


@pytest.mark.parametrize("name", ["client/blocking.py", "client/aio.py", "client/jobs.py", "contract/result.py"])
def test_the_texts_of_the_reference_are_markdown(name: str) -> None:
    text = (ROOT / "producer" / name).read_text()

    assert not re.search(r"::\n\n|^ *\.\. ", text, re.MULTILINE)
    assert ":class:" not in text
