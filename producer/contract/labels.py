"""Check candidate labels and hypothesis templates; pure functions."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from producer.contract.spelling import QUESTION, Spelling
from producer.errors import InvalidJob

DEFAULT_TEMPLATE: Final = "This is a photo of {}."
PLACEHOLDER: Final = "{}"

MAX_LABELS: Final = 1_000
MAX_LABEL_CHARACTERS: Final = 200
#: The maximum size of all labels together in UTF-8: half of the 64 KiB below which a message should stay.
MAX_LABELS_BYTES: Final = 32_768
#: The longest published ensemble (CLIP on ImageNet) has 80 templates.
MAX_TEMPLATES: Final = 100
#: CLIP reads at most 77 tokens of a prompt, and ordinary text of this many characters has more than 77.
MAX_TEMPLATE_CHARACTERS: Final = 500
#: The cache remembers at most this many label sets that passed the check; 64 of the largest take about 14 MB.
KNOWN_SETS: Final = 64

# Invisible characters, and those that change the direction of the text around them: C0/C1 controls and line
# separators, lone surrogates, bidirectional controls, and characters without width. ZWNJ (U+200C), ZWJ (U+200D) and
# the variation selectors are allowed, because real words and emoji need them, and so is a Mongolian vowel separator
# (U+180E) behind a letter, whose shape it changes.
_INVISIBLE: Final = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u2028\u2029"
    "\ud800-\udfff"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200b\u2060-\u2065\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff]"
    "|(?<![\u1820-\u18aa])\u180e"
)
#: The flag of a part of a country: a black flag, then its code in invisible tags, then their end (UTS 51, ED-14a).
_FLAG: Final = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
#: Characters that a label may contain, but that show nothing by themselves: spaces, the blank pattern of Braille, the
#: joiners, and the variation selectors of every script.
_BLANK: Final = re.compile("[\\s\u2800\u200c\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]*")


def check_candidate_labels(labels: object, spelling: Spelling = QUESTION) -> list[str]:
    """Return the labels exactly as given; raise an `InvalidJob` that names the first invalid one."""
    if not isinstance(labels, list | tuple):
        raise InvalidJob(f"{spelling.labels} must be a list of strings, not {spelling.kind(labels)}.")
    if not 1 <= len(labels) <= MAX_LABELS:
        raise InvalidJob(f"{spelling.labels} must hold 1 to {MAX_LABELS:,} labels, not {len(labels):,}.")
    try:
        # Convert to plain strings: a subclass of str could define its own equality, and the cache would keep its
        # instances alive.
        given = tuple(map(str.__str__, labels))
    except TypeError:  # an item is not a string; the check raises an error that names it
        given = tuple(labels)
        return list(_checked.__wrapped__(given, spelling))
    return list(_checked(given, spelling))


# Most jobs repeat the labels of earlier jobs. The cache also lets such jobs share one set of strings.
@lru_cache(maxsize=KNOWN_SETS)
def _checked(labels: tuple[str, ...], spelling: Spelling) -> tuple[str, ...]:
    total_bytes = 0
    seen: dict[str, int] = {}
    for position, label in enumerate(labels):
        name = spelling.label(position)
        canonical = _check_text(name, label, MAX_LABEL_CHARACTERS, spelling)
        total_bytes += len(label.encode())
        first = seen.setdefault(canonical, position)
        if first != position:
            other = spelling.label(first)
            raise InvalidJob(f"{name} {label!r} is the same label as {other}; send each label once.")
    if total_bytes > MAX_LABELS_BYTES:
        raise InvalidJob(
            f"{spelling.labels} have {total_bytes:,} bytes together; at most {MAX_LABELS_BYTES:,} are allowed."
        )
    return labels


def check_templates(template: object, spelling: Spelling = QUESTION) -> list[str]:
    """Return the hypothesis template, or the templates of an ensemble, as a list; raise `InvalidJob` for a bad one."""
    if isinstance(template, list | tuple):
        templates = list(template)
        names = [spelling.template(position) for position in range(len(templates))]
    else:
        templates, names = [template], [spelling.templates]
    if not 1 <= len(templates) <= MAX_TEMPLATES:
        raise InvalidJob(f"{spelling.templates} must hold 1 to {MAX_TEMPLATES} templates, not {len(templates):,}.")
    for name, item in zip(names, templates, strict=True):
        _check_text(name, item, MAX_TEMPLATE_CHARACTERS, spelling)
        if (count := item.count(PLACEHOLDER)) != 1:
            raise InvalidJob(f"{name} {item!r} must contain {{}} exactly once, not {count} times.")
    return templates


def fill(template: str, label: str) -> str:
    """Return the prompt for one label. `str.replace` is safe: it treats a template as data, not as a format string."""
    return template.replace(PLACEHOLDER, label, 1)


def _check_text(name: str, text: object, max_characters: int, spelling: Spelling) -> str:
    """Check one label or template; return its canonical form, which is equal for duplicates."""
    if not (isinstance(text, str) and issubclass(type(text), str)):  # isinstance also accepts a proxy object
        raise InvalidJob(f"{name} must be a string, not {spelling.kind(text)}.")
    if len(text) > max_characters:
        raise InvalidJob(f"{name} has {len(text):,} characters; at most {max_characters} are allowed.")
    if not text.isascii() or not text.isprintable():
        if found := _INVISIBLE.search(_FLAG.sub("", text)):
            raise InvalidJob(f"{name} contains the invisible character U+{ord(found[0]):04X}; remove it.")
        canonical = unicodedata.normalize("NFC", text).strip()
    else:
        canonical = text.strip()
    if _BLANK.fullmatch(canonical):
        raise InvalidJob(f"{name} is blank; every label and template needs visible text.")
    return canonical
