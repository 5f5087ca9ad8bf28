"""Put a trained checkpoint where the worker has it: `python -m checkpoint.publish RUN FOLDER`.

Copies what `from_pretrained` reads, measures it there, writes its card, and asks it about the demo's pictures.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Final

from checkpoint.card import write_card
from checkpoint.evaluate import evaluate, write_figures

_FILES: Final = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
)
_DEMO: Final = Path(__file__).parent.parent / "producer" / "demo" / "pictures"


def main() -> None:
    """Read the command line and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in _FILES:
        shutil.copyfile(given.run / file, folder / file)
    write_figures(evaluate(folder), folder)
    write_card(folder)
    _ask_demo(folder)


def _ask_demo(folder: Path) -> None:
    """Print what the pipeline of Transformers says to each of the demo's pictures."""
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=str(folder))
    for asked in json.loads((_DEMO / "pictures.json").read_text("utf-8")):
        answer = classify(str(_DEMO / asked["file"]), candidate_labels=asked["candidate_labels"])
        verdict = "right" if answer[0]["label"] == asked["expect"] else "WRONG"
        print(verdict, asked["file"], " ".join(f"{one['label']} {one['score']:.3f}" for one in answer))


if __name__ == "__main__":
    main()
