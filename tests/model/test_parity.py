"""The worker's scores are those of Transformers' zero-shot pipeline, for every family of the pipeline.

"The same" is a difference below 1e-5 in float32: the worker batches differently, and sums in another order. Labels may
stand in another order only where the pipeline's own scores differ by less than 1e-6.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.model.checkpoints import SMALL, pillow_tips_processor
from tests.model.pictures import decoded, write_all
from worker.model import Model

TEMPLATE = "This is a photo of {}."
LABELS = ["a fox", "two cats sleeping on a large red table", "bear", "eine Straße in Köln, 1930", "狐狸", "zebra"]
OTHER_LABELS = ["bus", "a small dog running on the beach", "owl"]

# For this family the pipeline cuts as many tokens off the start of every prompt as the model has queries, so that it
# is no reference; the test that uses the checkpoint by hand covers the family.
PIPELINES = [family for family in SMALL if family != "blip-2-image-token"]

Scores = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("pictures"))


def scores(model: Model, image: npt.NDArray[np.float32], texts: npt.NDArray[np.float32]) -> Scores:
    logits = model.logits(image, texts).astype(np.float64)
    if model.scoring == "sigmoid":
        apart: Scores = 1 / (1 + np.exp(-logits))
        return apart
    powers = np.exp(logits - logits.max())
    shares: Scores = powers / powers.sum()
    return shares


def prompts(labels: Sequence[str], template: str = TEMPLATE) -> list[str]:
    return [template.replace("{}", label) for label in labels]


def assert_same(ours: Scores, labels: Sequence[str], reference: Sequence[dict[str, Any]]) -> None:
    """Assert that scores and ranking are the same, as the docstring of this file defines it."""
    theirs = {entry["label"]: entry["score"] for entry in reference}
    assert ours == pytest.approx([theirs[label] for label in labels], rel=0, abs=1e-5)
    ranking = [labels[position] for position in np.argsort(-ours, kind="stable")]
    for better, worse in pairwise(ranking):
        assert theirs[better] > theirs[worse] - 1e-6


@pytest.mark.parametrize("family", PIPELINES)
def test_a_picture_in_a_batch_of_its_own_gets_the_scores_of_the_pipeline(
    family: str, loaded: Callable[[str], Model], pipeline: Callable[[str], Any], pictures: list[Path]
) -> None:
    model, reference = loaded(family), pipeline(family)
    texts = model.embed_texts(prompts(LABELS))
    for picture in pictures:
        [image] = model.embed_images([model.prepare(decoded(picture))])
        assert_same(scores(model, image, texts), LABELS, reference(str(picture), candidate_labels=LABELS))


@pytest.mark.parametrize("family", PIPELINES)
def test_jobs_that_share_a_batch_get_the_scores_of_their_own_pictures_and_labels(
    family: str, loaded: Callable[[str], Model], pipeline: Callable[[str], Any], pictures: list[Path]
) -> None:
    model, reference = loaded(family), pipeline(family)
    wanted = [LABELS if number % 2 else OTHER_LABELS for number in range(len(pictures))]
    prepared = [model.prepare(decoded(picture)) for picture in pictures]
    assert len({image.key for image in prepared}) == 1, "pictures of any shape go into one batch"
    # Like a cache's, some vectors were computed in one batch with those of other jobs, and some alone.
    cached = dict(zip(LABELS + OTHER_LABELS, model.embed_texts(prompts(LABELS + OTHER_LABELS)), strict=True))
    cached["a fox"] = model.embed_texts(prompts(["a fox"]))[0]
    for picture, image, labels in zip(pictures, model.embed_images(prepared), wanted, strict=True):
        ours = scores(model, image, np.stack([cached[label] for label in labels]))
        assert_same(ours, labels, reference(str(picture), candidate_labels=labels))


@pytest.mark.parametrize("family", SMALL)
def test_small_checkpoints_give_different_scores_to_different_pictures_and_labels(
    family: str, loaded: Callable[[str], Model], pictures: list[Path]
) -> None:
    """If all scores were alike, the tests above would prove nothing."""
    model = loaded(family)
    images = model.embed_images([model.prepare(decoded(picture)) for picture in pictures])
    texts = model.embed_texts(prompts(LABELS))
    table = np.stack([scores(model, image, texts) for image in images])
    distance = 1e-3  # a hundred times what the tests above let pass
    assert np.ptp(table, axis=1).min() > distance, "labels of one picture"
    assert np.ptp(table, axis=0).min() > distance, "pictures under one label"
    assert min(np.abs(one - other).max() for one, other in combinations(table, 2)) > distance, "any two pictures"


@pytest.mark.parametrize("family", SMALL)
def test_logits_are_those_of_transformers_own_model_and_processor(
    family: str, loaded: Callable[[str], Model], checkpoint: Callable[[str], Path], pictures: list[Path]
) -> None:
    import torch

    model = loaded(family)
    network, inputs_of = by_hand(family, checkpoint(family))
    texts = model.embed_texts(prompts(LABELS))
    for picture in pictures[:4]:
        with torch.inference_mode():
            theirs = network(**inputs_of(decoded(picture), prompts(LABELS))).logits_per_image[0]
        [image] = model.embed_images([model.prepare(decoded(picture))])
        assert model.logits(image, texts) == pytest.approx(theirs.numpy(), rel=0, abs=2e-5)


def by_hand(family: str, folder: Path) -> tuple[Any, Callable[[Any, list[str]], Any]]:
    """Return the model, and its own processor as a function, as the model's documentation uses them."""
    parts: Any = importlib.import_module("transformers")
    tokenizer = parts.AutoTokenizer.from_pretrained(folder)
    settings: dict[str, Any] = {"padding": "max_length", "max_length": 64} if "siglip" in family else {"padding": True}
    if family == "vision-text-dual-encoder":
        network = parts.VisionTextDualEncoderModel.from_pretrained(folder)
        images = parts.AutoImageProcessor.from_pretrained(folder)
        both = parts.VisionTextDualEncoderProcessor(images, tokenizer)
        return network, lambda image, texts: both(images=image, text=texts, return_tensors="pt", **settings)
    network = parts.AutoModelForZeroShotImageClassification.from_pretrained(folder)
    if family == "tipsv2":
        both = parts.Tipsv2Processor(pillow_tips_processor(), tokenizer)
    elif family == "blip-2-image-token":
        images = parts.AutoImageProcessor.from_pretrained(folder)
        both = parts.Blip2Processor(images, tokenizer, num_query_tokens=network.config.num_query_tokens)
    else:
        both = parts.AutoProcessor.from_pretrained(folder)
    if family == "align":  # its processor pads to a fixed length
        settings = {"padding": "max_length", "max_length": 64}
    if family == "siglip2":  # its processor has defaults of its own, which override the checkpoint's
        settings |= {"patch_size": 8, "max_num_patches": 16}
    return network, lambda image, texts: both(images=image, text=texts, return_tensors="pt", **settings)


@pytest.mark.parametrize("family", ["clip", "siglip", "altclip", "blip-2"])
def test_one_label_scores_as_in_the_pipeline(
    family: str, loaded: Callable[[str], Model], pipeline: Callable[[str], Any], pictures: list[Path]
) -> None:
    model = loaded(family)
    [image] = model.embed_images([model.prepare(decoded(pictures[0]))])
    ours = scores(model, image, model.embed_texts(prompts(["a fox"])))
    assert_same(ours, ["a fox"], pipeline(family)(str(pictures[0]), candidate_labels=["a fox"]))
    if model.scoring == "softmax":
        assert ours[0] == 1.0


@pytest.mark.parametrize("family", ["clip", "siglip", "chinese_clip", "blip-2"])
def test_a_thousand_labels_score_as_in_the_pipeline(
    family: str, loaded: Callable[[str], Model], pipeline: Callable[[str], Any], pictures: list[Path]
) -> None:
    model = loaded(family)
    labels = [f"{LABELS[number % 6]} {OTHER_LABELS[number % 3]} number {number}" for number in range(1000)]
    [image] = model.embed_images([model.prepare(decoded(pictures[0]))])
    ours = scores(model, image, model.embed_texts(prompts(labels)))
    assert_same(ours, labels, pipeline(family)(str(pictures[0]), candidate_labels=labels))


@pytest.mark.parametrize("template", ["{}", "a bad drawing of the {}, {{0}} %s", "ein Foto von einem {}!"])
def test_any_template_scores_as_in_the_pipeline(
    template: str, loaded: Callable[[str], Model], pipeline: Callable[[str], Any], pictures: list[Path]
) -> None:
    """The pipeline fills the template with `str.format`, which turns doubled braces into single ones."""
    model = loaded("clip")
    [image] = model.embed_images([model.prepare(decoded(pictures[0]))])
    filled = prompts(LABELS, template.replace("{{", "{").replace("}}", "}"))
    reference = pipeline("clip")(str(pictures[0]), candidate_labels=LABELS, hypothesis_template=template)
    assert_same(scores(model, image, model.embed_texts(filled)), LABELS, reference)


@pytest.mark.parametrize("family", ["clip", "siglip", "align", "metaclip_2"])
def test_an_ensemble_of_templates_is_the_normalised_mean_of_the_normalised_embeddings(
    family: str, loaded: Callable[[str], Model], checkpoint: Callable[[str], Path], pictures: list[Path]
) -> None:
    import torch

    templates = ["This is a photo of {}.", "a drawing of {}", "{} in the dark, bad resolution"]
    model = loaded(family)
    network, inputs_of = by_hand(family, checkpoint(family))
    per_template = []
    with torch.inference_mode():
        for template in templates:
            output = network(**inputs_of(decoded(pictures[1]), prompts(LABELS, template)))
            per_template.append(output.text_embeds)
        mean = torch.stack(per_template).mean(0)
        cosines = (mean / mean.norm(dim=-1, keepdim=True)) @ output.image_embeds[0]
    # The family's own scale and bias, derived from the logits that the network gave for the last template.
    slope, bias = np.polyfit((per_template[-1] @ output.image_embeds[0]).numpy(), output.logits_per_image[0].numpy(), 1)

    [image] = model.embed_images([model.prepare(decoded(pictures[1]))])
    ours = np.mean([model.embed_texts(prompts(LABELS, template)) for template in templates], axis=0)
    ours /= np.linalg.norm(ours, axis=-1, keepdims=True)
    assert model.logits(image, ours) == pytest.approx(cosines.numpy() * slope + bias, rel=0, abs=5e-5)
    assert not math.isclose(slope, 1.0)
