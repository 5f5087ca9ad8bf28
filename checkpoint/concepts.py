"""The concepts that the checkpoint is taught: their pictures and their names in English and Japanese."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONCEPTS_FILE: Final = Path(__file__).with_name("concepts.txt")

# U+FE0F asks for the coloured form of a character; packages disagree on writing it, so keys go without it.
_COLOURED: Final = "fe0f"


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing: `keys` name its pictures, and the first name of a language is its label when it is evaluated."""

    keys: tuple[str, ...]
    english: tuple[str, ...]
    japanese: tuple[str, ...]


def read_concepts() -> list[Concept]:
    """Every concept of `concepts.txt`, in its order.

    Raises:
        ValueError: a line is malformed, or a name or a picture stands in two lines.
    """
    concepts: list[Concept] = []
    seen: set[str] = set()
    for line in CONCEPTS_FILE.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        emoji, english, japanese = line.split("|")
        concept = Concept(tuple(emoji_key(one) for one in emoji.split()), _names(english), _names(japanese))
        for word in (*concept.keys, *concept.english, *concept.japanese):
            if word in seen:
                raise ValueError(f"{word!r} stands twice in {CONCEPTS_FILE.name}: {line}")
            seen.add(word)
        concepts.append(concept)
    return concepts


def emoji_key(emoji: str) -> str:
    """An emoji's code points in hexadecimal, joined by hyphens, without U+FE0F: '🕊️' gives '1f54a'."""
    return bare_key("-".join(f"{ord(character):x}" for character in emoji))


def bare_key(code_points: str) -> str:
    """The same for code points already written out, as in a file's name: '1F54A-FE0F' gives '1f54a'."""
    return "-".join(part for part in code_points.lower().split("-") if part != _COLOURED)


def _names(column: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in column.split(","))
    if not all(names):
        raise ValueError(f"an empty name in {column!r}")
    return names
