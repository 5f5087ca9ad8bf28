"""The bundled pictures, the labels they are asked about, and the label that should come first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("pictures")


@dataclass(frozen=True, slots=True)
class Picture:
    """One bundled picture; ``expect`` is one of its candidate labels."""

    file: str
    candidate_labels: list[str]
    expect: str

    @property
    def path(self) -> Path:
        """Where the image lies."""
        return FOLDER / self.file


def pictures() -> list[Picture]:
    """All of them, in the order in which the demo shows them."""
    entries = json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8"))
    return [Picture(entry["file"], entry["candidate_labels"], entry["expect"]) for entry in entries]


def files_by_name() -> dict[str, Path]:
    """What a picture server serves."""
    return {picture.file: picture.path for picture in pictures()}
