"""What is said about a picture while training: templates, and the names that go into them."""

from collections.abc import Sequence
from random import Random
from typing import Final

from checkpoint.concepts import Concept

# What the zero-shot pipeline of Transformers says when it is told nothing else.
DEFAULT_TEMPLATE: Final = "This is a photo of {}."

# The default is drawn as often as all others together, for it is what the model is asked nearly always.
DEFAULT_SHARE: Final = 0.5
_OTHERS: Final = (
    "{}",
    "a {}",
    "a photo of a {}.",
    "a photo of {}",
    "a picture of a {}",
    "an emoji of a {}",
    "an image of a {}.",
    "a drawing of a {}.",
    "a small picture of the {}.",
    "this is a {}",
    "a cartoon of a {} on a plain background",
    "there is a {} in this picture.",
)
_JAPANESE: Final = ("{}", "{}の写真", "{}の写真。", "{}の絵", "{}の絵文字", "これは{}の写真です。", "{}の画像です")

# The name that is evaluated comes twice as often as all synonyms together; with one name it comes always.
_FIRST_NAME_SHARE: Final = 0.65
# At a quarter, Japanese is learnt almost as well as English and takes little from it.
JAPANESE_SHARE: Final = 0.25


def draw_captions(concepts: Sequence[Concept], random: Random, *, japanese_share: float) -> list[str]:
    """One caption for each concept, in the concepts' order.

    The captions are one another's negatives, and a negative teaches most when only the name differs: so the language
    and the template are mostly the same for all captions of a call.
    """
    in_japanese = random.random() < japanese_share
    template = _template(random, in_japanese=in_japanese)
    captions = []
    for concept in concepts:
        # One in ten goes its own way: candidate labels may mix languages.
        strays = random.random() < 0.1
        language = random.random() < japanese_share if strays else in_japanese
        names = concept.japanese if language else concept.english
        own = _template(random, in_japanese=language) if strays else template
        captions.append(own.format(_name(names, random)))
    return captions


def corpus(concepts: Sequence[Concept]) -> list[str]:
    """What the tokenizer's merges are learnt from: every name, and every template as often as there are names.

    Apart, so that no token holds the end of a name and the start of a template. Japanese writes no spaces: a name
    counts there in the middle of a run of letters too.
    """
    templates = [template.format(" ") for template in (DEFAULT_TEMPLATE, *_OTHERS, *_JAPANESE)]
    names = [name for concept in concepts for name in (*concept.english, *concept.japanese)]
    inner = [f"{name}の" for concept in concepts for name in concept.japanese]
    return [*templates * len(concepts), *names, *inner]


def _template(random: Random, *, in_japanese: bool) -> str:
    if random.random() < DEFAULT_SHARE:
        return DEFAULT_TEMPLATE
    return random.choice(_JAPANESE if in_japanese else _OTHERS)


def _name(names: Sequence[str], random: Random) -> str:
    if len(names) == 1 or random.random() < _FIRST_NAME_SHARE:
        return names[0]
    return random.choice(names[1:])
