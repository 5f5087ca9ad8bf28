"""Measure a saved checkpoint: `python -m checkpoint.evaluate worker/bundled/emoji-clip` prints and writes JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from checkpoint import data
from checkpoint.captions import DEFAULT_TEMPLATE
from checkpoint.concepts import Concept, read_concepts

# Of ten labels, one is right; each picture is asked with this many draws of the other nine.
_LABELS: Final = 10
_DRAWS: Final = 50
_SEED: Final = 0


def main() -> None:
    """Read the command line, measure, print, write `evaluation.json` into the checkpoint's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    write_figures(evaluate(given.folder), given.folder)


def write_figures(figures: dict[str, Any], folder: Path) -> None:
    """Print the figures, and write them into the folder as `evaluation.json`."""
    written = json.dumps(figures, indent=2, ensure_ascii=False)
    print(written)
    (folder / "evaluation.json").write_text(written + "\n", "utf-8")


def evaluate(folder: Path) -> dict[str, Any]:
    """Every figure of the model card, from the folder as anyone would load it."""
    import transformers

    library: Any = transformers  # much of it is untyped
    model = library.AutoModelForZeroShotImageClassification.from_pretrained(folder).eval()
    processor = library.AutoProcessor.from_pretrained(folder)
    concepts = read_concepts()
    english = _text(model, processor.tokenizer, [concept.english[0] for concept in concepts])
    japanese = _text(model, processor.tokenizer, [concept.japanese[0] for concept in concepts])
    scale = float(model.logit_scale.detach().exp())
    styles: dict[str, Any] = {}
    for style in (*data.TRAINING, data.DEVELOPMENT, data.UNSEEN):
        pictures = data.load(style)
        features = _images(model, processor.image_processor, pictures)
        styles[style] = {
            "pictures": len(pictures.concepts),
            "english": _figures(scale * features @ english.T, pictures.concepts),
            "japanese": _figures(scale * features @ japanese.T, pictures.concepts),
        }
    return {
        "template": DEFAULT_TEMPLATE,
        "concepts": len(concepts),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "logit_scale": round(scale, 2),
        "trained_on": list(data.TRAINING),
        "settings_chosen_on": data.DEVELOPMENT,
        "never_seen": data.UNSEEN,
        "styles": styles,
    }


def accuracy_over_all(model: Any, tokenizer: Any, concepts: Sequence[Concept], pictures: data.Pictures) -> float:
    """The share of pictures whose first English name wins among those of all concepts, for a look while training."""
    from checkpoint.model import SIDE, normalised

    model.eval()
    features = _text(model, tokenizer, [concept.english[0] for concept in concepts])
    pixels = torch.from_numpy(np.stack([np.asarray(_on_white(one, SIDE)) for one in pictures.pixels]))
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=normalised(pixels.permute(0, 3, 1, 2).float() / 255))
    model.train()
    scores = _unit(seen.pooler_output) @ features.T
    return float((scores.argmax(1).numpy() == pictures.concepts).mean())


def _figures(logits: torch.Tensor, right: data.Numbers) -> dict[str, float]:
    """Shares of pictures that come out right, and the median scores of the winner among ten.

    Args:
        logits: float32 (pictures, concepts).
        right: int64 (pictures,).
    """
    random = np.random.default_rng(_SEED)
    number, concepts = logits.shape
    scores = []
    for picture in range(number):
        others = np.delete(np.arange(concepts), right[picture])
        for _ in range(_DRAWS):
            rows = [right[picture], *random.choice(others, _LABELS - 1, replace=False)]
            scores.append(logits[picture, torch.tensor(np.array(rows))].softmax(0))
    drawn = torch.stack(scores)
    won = drawn.argmax(1) == 0
    # nan as the median of nothing would not be JSON: where nothing is wrong, the figure is 0.
    mistaken = drawn[~won].amax(1).median().item() if not won.all() else 0.0
    return {
        "top_1_of_10": round(won.float().mean().item(), 4),
        "top_1_of_all": round(float((logits.argmax(1).numpy() == right).mean()), 4),
        "median_score_when_right_of_10": round(drawn[won, 0].median().item(), 4),
        "median_score_when_wrong_of_10": round(mistaken, 4),
    }


def _text(model: Any, tokenizer: Any, names: Sequence[str]) -> torch.Tensor:
    """Unit vectors of the names in the default template, float32 (n, projection)."""
    tokens = tokenizer([DEFAULT_TEMPLATE.format(name) for name in names], padding=True, return_tensors="pt")
    with torch.no_grad():
        return _unit(model.get_text_features(**tokens).pooler_output)


def _images(model: Any, image_processor: Any, pictures: data.Pictures) -> torch.Tensor:
    """Unit vectors of the pictures on white, float32 (n, projection)."""
    on_white = [_on_white(one, data.SIDE) for one in pictures.pixels]
    with torch.no_grad():
        features = model.get_image_features(**image_processor(images=on_white, return_tensors="pt"))
    return _unit(features.pooler_output)


def _on_white(pixels: data.Pixels, side: int) -> Image.Image:
    """uint8 (h, w, 4) with straight alpha as an RGB picture of `side`."""
    picture = Image.fromarray(pixels)
    paper = Image.new("RGBA", picture.size, "white")
    paper.alpha_composite(picture)
    return paper.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=1)


if __name__ == "__main__":
    main()
