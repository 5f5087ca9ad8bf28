"""Write the model card from what training and evaluation left: `python -m checkpoint.card FOLDER`."""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any, Final

from checkpoint.concepts import read_concepts

_SHOWN: Final = {
    "noto": "Noto Emoji",
    "noto-v1": "Noto Emoji, first version",
    "twemoji": "Twemoji",
    "fluent-flat": "Fluent Emoji, flat",
    "fluent-3d": "Fluent Emoji, 3D",
    "emojione": "EmojiOne 2",
    "facebook": "Facebook's emoji",
}

_CARD: Final = """---
library_name: transformers
pipeline_tag: zero-shot-image-classification
language: [en, ja]
license: apache-2.0
---

# emoji-clip

**A toy.** It recognises emoji-style drawings of {concepts} concrete things and nothing else, so that the demo and the
tests have a real CLIP to run without downloading one. It knows no photographs, whatever its template says: for those,
use a real checkpoint such as `openai/clip-vit-base-patch32`.

It is a `CLIPModel` of {parameters:.1f} million parameters, with a byte-level tokenizer of its own; {megabytes:.1f} MB,
weights in float16. Pictures are read at {side} pixels.

```python
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="worker/bundled/emoji-clip")
print(classify("producer/demo/pictures/owl.png", candidate_labels=["fox", "bear", "seagull", "owl"]))
```

## Figures

Written by `checkpoint/evaluate.py` (all of them are in `evaluation.json`), with the template
`{template}`, one picture on white at a time. *Of 10*: the right name against nine drawn from the
others, 50 draws for each picture. *Of all*: against the names of all {concepts} concepts. *Score*: the median score of
the right name of ten, where it won.

| style | used for | pictures | of 10 | of all | score | of 10, Japanese | of all, Japanese |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

It is too sure of itself: where it is wrong on the style it never saw, its answer among ten still has a median score of
{wrong:.2f}. The demo's pictures are drawn in styles it was trained on, and a drawing that it took for something else on
the demo's background (a pizza, for a hamburger) was replaced by another.

The last line is the one that says something: nothing was trained on that style or chosen by it. The same things are
drawn in much the same way in every style, so the figures say little about other pictures.

## Names

{names}

Synonyms and Japanese names are taught as well; `checkpoint/concepts.txt` has them all. No emoji shows a seagull: the
word was taught as another name of the dove.

## Making it again

```console
python -m checkpoint.data
{command}
python -m checkpoint.publish checkpoint/.runs/long worker/bundled/emoji-clip
```

Seed {seed}, {steps} steps, PyTorch {torch}, Transformers {transformers}, {threads} threads. The same
machine gives the same weights; another one gives others, by the rounding of its arithmetic, and much the same figures.

## Sources and licences

The weights were learnt from these pictures, none of which is in this folder:

- [Noto Emoji](https://github.com/googlefonts/noto-emoji), Google: Apache-2.0 (pictures), OFL-1.1 (fonts)
- [Twemoji](https://github.com/twitter/twemoji), Copyright Twitter, Inc and other contributors: graphics
  [CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/)
- [Fluent Emoji](https://github.com/microsoft/fluentui-emoji), Copyright Microsoft Corporation: MIT

Only measured with, neither learnt from nor included: [EmojiOne 2](https://github.com/joypixels/emojione) (CC-BY 4.0)
and the emoji of Facebook. The pictures came by way of `emoji-datasource`, Iconify's icon sets and
`@lobehub/fluent-emoji-3d`. The names were written by hand for this project.
"""


def main() -> None:
    """Read the command line, write `README.md` into the checkpoint's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_card(parser.parse_args().folder)


def write_card(folder: Path) -> None:
    """Fill the card from `evaluation.json`, `training.json` and the files themselves."""
    figures: dict[str, Any] = json.loads((folder / "evaluation.json").read_text("utf-8"))
    training: dict[str, Any] = json.loads((folder / "training.json").read_text("utf-8"))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    card = _CARD.format(
        concepts=figures["concepts"],
        parameters=figures["parameters"] / 1e6,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        side=config["vision_config"]["image_size"],
        template=figures["template"],
        rows="\n".join(_row(style, figures) for style in figures["styles"]),
        wrong=figures["styles"][figures["never_seen"]]["english"]["median_score_when_wrong_of_10"],
        names=textwrap.fill(", ".join(concept.english[0] for concept in read_concepts()) + ".", 120),
        **training,
    )
    (folder / "README.md").write_text(card, "utf-8")


def _row(style: str, figures: dict[str, Any]) -> str:
    purpose = "training" if style in figures["trained_on"] else "choosing settings"
    if style == figures["never_seen"]:
        purpose = "**nothing else**"
    measured = figures["styles"][style]
    english, japanese = measured["english"], measured["japanese"]
    cells = [
        _SHOWN[style],
        purpose,
        str(measured["pictures"]),
        *(f"{english[key]:.2f}" for key in ("top_1_of_10", "top_1_of_all", "median_score_when_right_of_10")),
        *(f"{japanese[key]:.2f}" for key in ("top_1_of_10", "top_1_of_all")),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
