"""Train the small checkpoint: `python -m checkpoint.train --steps 3000 --seed 0 --out checkpoint/.runs/long`.

Each concept has an anchor, a vector of its own. The vision tower learns to point a picture at its concept's anchor
and away from all others, and the text tower learns to point captions at them. So a picture is compared with every
concept at every step, which is what makes small batches enough, and the text tower, which learns far sooner, costs
little.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from checkpoint import captions, data
from checkpoint.augment import Strength, render
from checkpoint.concepts import Concept, read_concepts
from checkpoint.evaluate import accuracy_over_all
from checkpoint.model import CONTEXT, SIDE, build, image_features, normalised, save, text_features, whiten
from checkpoint.optimiser import Muon
from checkpoint.tokenizer import make_tokenizer

# A step costs a second or so on two free cores; twice the pictures would halve the number of steps.
_BATCH: Final = 160
# The text tower takes part in every third step: it maps some 1,000 names to as many places, and that is learnt soon.
_TEXT_EVERY: Final = 3
# CLIP's ceiling; it starts at 1 / 0.07, as CLIP does.
_HIGHEST_LOGIT_SCALE: Final = math.log(100)
# Of 36 patches; all are shown in the last tenth of the steps, as they will be when the model is used.
_KEPT_PATCHES: Final = 20
_ALL_PATCHES_FROM: Final = 0.9
_WARM_UP: Final = 30
# Steps until the pictures are changed as much as they ever are.
_RISING: Final = 500
_FALL_FROM: Final = 0.75
_SAVE_EVERY: Final = 100
_REPORT_EVERY: Final = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the weights, besides the packages."""

    steps: int
    seed: int
    learning_rate: float
    weight_decay: float
    japanese_share: float
    threads: int


@dataclass(slots=True)
class Source:
    """Pictures of the training styles: uint8 (n, h, w, 4), int64 (n,), and how often each is drawn, float64 (n,)."""

    pixels: torch.Tensor
    concepts: torch.Tensor
    chances: torch.Tensor


class Run:
    """Everything that training changes.

    Args:
        settings: they and the packages decide the outcome.
        concepts: what is taught, in an order that stays.
    """

    def __init__(self, settings: Settings, concepts: list[Concept]) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.concepts = settings, concepts
        self.tokenizer = make_tokenizer(captions.corpus(concepts), context=CONTEXT)
        self.model = build(self.tokenizer).train()
        self.anchors = torch.nn.Parameter(torch.randn(len(concepts), self.model.config.projection_dim))
        self.source = _source()
        whiten(self.model, render(self.source.pixels, SIDE, Strength(), torch.Generator().manual_seed(settings.seed)))
        matrices = [one for one in self.model.vision_model.encoder.parameters() if one.ndim == 2]
        taken = {id(one) for one in matrices}
        others = [one for one in self.model.parameters() if id(one) not in taken]
        # Biases, norms, the class token and the logit scale are not decayed, or the scale would never grow.
        groups = [
            {"params": [one for one in others if one.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [self.anchors, *(one for one in others if one.ndim <= 1)], "weight_decay": 0.0},
        ]
        rate = settings.learning_rate
        self.optimisers = [
            Muon(matrices, lr=rate, weight_decay=settings.weight_decay),
            torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98)),
        ]
        self.done = 0

    def step(self) -> float:
        """One update; the loss of the pictures.

        The random numbers depend on the seed and the step alone, so a resumed run goes on as if it had not stopped.
        """
        settings, model, now = self.settings, self.model, self.done
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + now)
        chosen = torch.multinomial(self.source.chances, _BATCH, replacement=True, generator=generator)
        strength = Strength.rising(min(1.0, now / _RISING))
        images = render(self.source.pixels[chosen], SIDE, strength, generator)
        kept = None
        if now < _ALL_PATCHES_FROM * settings.steps:
            patches = (SIDE // model.config.vision_config.patch_size) ** 2
            kept = torch.rand(_BATCH, patches, generator=generator).argsort(1)[:, :_KEPT_PATCHES]
        anchors = functional.normalize(self.anchors, dim=1)
        scores = model.logit_scale.exp() * image_features(model, normalised(images), kept) @ anchors.T
        loss = functional.cross_entropy(scores, self.source.concepts[chosen])
        total = loss
        if now % _TEXT_EVERY == 0:
            total = total + self._text_loss(anchors.detach(), Random(settings.seed * 1_000_003 + now))
        for optimiser in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * _schedule(now, settings.steps)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*model.parameters(), self.anchors], 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=_HIGHEST_LOGIT_SCALE)
        self.done += 1
        return loss.item()

    def _text_loss(self, anchors: torch.Tensor, random: Random) -> torch.Tensor:
        """How far one caption for each concept is from its anchor, and how easily it is taken for another's."""
        texts = captions.draw_captions(self.concepts, random, japanese_share=self.settings.japanese_share)
        scores = text_features(self.model, self.tokenizer, texts) @ anchors.T
        sharp = self.model.logit_scale.detach().exp() * scores
        return functional.cross_entropy(sharp, torch.arange(len(texts))) + (1 - scores.diagonal()).mean()

    def save(self, folder: Path) -> None:
        """The checkpoint, where it comes from, and what a resumed run needs."""
        save(self.model, self.tokenizer, folder)
        _write_origin(self.settings, folder)
        state = {"model": self.model.state_dict(), "anchors": self.anchors.detach(), "done": self.done}
        torch.save({**state, "optimisers": [one.state_dict() for one in self.optimisers]}, folder / "state.pt")

    def resume(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(folder / "state.pt")
        self.model.load_state_dict(state["model"])
        self.anchors.data.copy_(state["anchors"])
        self.done = state["done"]
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)


def main() -> None:
    """Read the command line, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--japanese-share", type=float, default=captions.JAPANESE_SHARE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and for what resumes it")
    parser.add_argument("--resume", action="store_true", help="go on from what the folder holds")
    given = vars(parser.parse_args())
    folder, resume = given.pop("out"), given.pop("resume")
    torch.set_num_threads(given["threads"])
    run = Run(Settings(**given), read_concepts())
    if resume:
        run.resume(folder)
    train(run, folder)


def train(run: Run, folder: Path) -> None:
    """Train to the last step, saving to `folder` every 100."""
    folder.mkdir(parents=True, exist_ok=True)
    steps, first, started = run.settings.steps, run.done, time.monotonic()
    losses: list[float] = []
    while run.done < steps:
        losses.append(run.step())
        if run.done % _REPORT_EVERY == 0:
            pace = (time.monotonic() - started) / (run.done - first)
            mean = sum(losses[-_REPORT_EVERY:]) / len(losses[-_REPORT_EVERY:])
            left = pace * (steps - run.done) / 60
            print(f"step {run.done}/{steps} loss {mean:.3f} {pace:.2f} s/step, {left:.0f} min left", flush=True)
        if run.done % _SAVE_EVERY == 0 or run.done == steps:
            run.save(folder)
            share = accuracy_over_all(run.model, run.tokenizer, run.concepts, data.load(data.DEVELOPMENT))
            print(f"step {run.done}: of {data.DEVELOPMENT}, {share:.3f} right among all names", flush=True)


def _write_origin(settings: Settings, folder: Path) -> None:
    """`training.json`: how to make this checkpoint again."""
    import transformers

    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in asdict(settings).items())
    origin = {
        "command": f"python -m checkpoint.train {options} --out checkpoint/.runs/long",
        **asdict(settings),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }
    (folder / "training.json").write_text(json.dumps(origin, indent=2) + "\n", "utf-8")


def _source() -> Source:
    """All training styles together; a concept is drawn as often as any other, however many pictures it has."""
    styles = [data.load(style) for style in data.TRAINING]
    concepts = np.concatenate([style.concepts for style in styles])
    chances = 1 / np.bincount(concepts)[concepts]
    pixels = np.concatenate([style.pixels for style in styles])
    return Source(torch.from_numpy(pixels), torch.from_numpy(concepts), torch.from_numpy(chances))


def _schedule(step: int, steps: int) -> float:
    """A linear rise, a long level, and a linear fall to nothing over the last quarter.

    Until the fall nothing depends on the number of steps: a run can be lengthened, or cut short, by resuming it with
    another number, and is then the very run that this number would have given from the start.
    """
    return min(1.0, (step + 1) / _WARM_UP, (steps - step) / ((1 - _FALL_FROM) * steps))


if __name__ == "__main__":
    main()
