"""Loads a checkpoint by name, or says in one sentence why it cannot be used."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers

from worker.model.damage import refuse_unreadable_files
from worker.model.devices import compute_exactly, pick_dtype
from worker.model.dual import DualEncoder
from worker.model.families import EXACT_PARAMETERS, FAMILIES, REFUSED, Family, scale_and_bias
from worker.model.forward import meaning_of
from worker.model.interface import DeviceLostError, Logits, Model, ModelLoadError, ModelOutOfMemoryError
from worker.model.pixels import Preparation, preparation
from worker.model.plausible import refuse_implausible_images, refuse_implausible_network
from worker.model.prompts import PROBE
from worker.model.refusals import explained, quiet
from worker.model.sources import Source, find_source
from worker.model.text_tower import measured_prompts
from worker.model.weights import check_weights


def load(model: str, *, revision: str | None, target: torch.device, dtype: str) -> Model:
    """Implement `worker.model.load_model`, on the device `target`."""
    torch_dtype = pick_dtype(dtype, target)
    if torch_dtype == torch.float32:
        compute_exactly()
    with quiet():
        with explained("configuration", model, revision=revision):
            source = find_source(model, revision)
            refuse_unreadable_files(source)
        explaining = partial(explained, model=model, revision=revision, source=source)
        with explaining("configuration"):
            config = transformers.AutoConfig.from_pretrained(**source.arguments, trust_remote_code=False)
        family = _family(model, config.model_type)
        architecture = _architecture(model, family)
        with explaining("configuration"):
            refuse_implausible_network(source, architecture, config)
        with explaining("weights"):
            network, report = architecture.from_pretrained(
                **source.arguments,
                config=config,
                dtype=torch_dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report lists weights of a wrong size like missing ones
            )
        check_weights(model, family.architecture, report)
        network.eval().requires_grad_(False)
        with explaining("tokenizer"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source.arguments, trust_remote_code=False)
            _refuse_empty_tokenizer(model, tokenizer)
        with explaining("text tower"):
            prompts = measured_prompts(model, tokenizer, network, family, config, torch_dtype)
        with explaining("image processor"):
            processor = _processor(family, source)
            refuse_implausible_images(source, processor)
            prepares = preparation(processor)
        with explaining("scale of scores"):
            logits = Logits(*scale_and_bias(network))
        with explaining(f"move to {target}"):
            network = _moved(network, target, model)
    return DualEncoder(
        name=source.name,
        revision=source.commit,
        network=network,
        dtype=torch_dtype,
        family=family,
        preparation=prepares,
        prompts=prompts,
        logits=logits,
    )


def load_preparation(model: str, revision: str | None, model_type: str) -> Preparation:
    """Load the checkpoint's image processor without its network, for a process that has no device.

    Args:
        revision: commit of a Hub checkpoint.
        model_type: the checkpoint's ``model_type``.

    Raises:
        ModelLoadError: the image processor cannot be used.
    """
    with quiet():
        with explained("configuration", model, revision=revision):
            source = find_source(model, revision)
        with explained("image processor", model, revision=revision, source=source):
            return preparation(_processor(_family(model, model_type), source))


def _moved(network: Any, target: torch.device, model: str) -> Any:
    try:
        return network.to(target)
    except Exception as failure:  # PyTorch raises nearly every kind
        meaning = meaning_of(failure)
        if isinstance(meaning, ModelOutOfMemoryError):
            raise ModelLoadError(
                f"model {model!r} does not fit into the free memory of {target}: free memory there, choose a smaller "
                "model, or change NAMESHOT_DEVICE or NAMESHOT_DTYPE"
            ) from failure
        raise (meaning if isinstance(meaning, DeviceLostError) else failure) from None


def _family(model: str, model_type: str) -> Family:
    if model_type in REFUSED:
        raise ModelLoadError(
            f"model {model!r} is a {model_type} checkpoint, and {REFUSED[model_type]}: choose another model"
        )
    if model_type not in FAMILIES:
        raise ModelLoadError(
            f"model {model!r} is of the type {model_type!r}, which does not classify images zero-shot: choose a model "
            f"of one of the types {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def _architecture(model: str, family: Family) -> Any:
    try:
        architecture: Any = getattr(transformers, family.architecture)
    except AttributeError as missing:
        raise ModelLoadError(
            f"model {model!r} needs {family.architecture}, which transformers {transformers.__version__} does not "
            "have: install a newer transformers"
        ) from missing
    architecture._keep_in_fp32_modules_strict = {
        *(architecture._keep_in_fp32_modules_strict or ()),
        *EXACT_PARAMETERS,
    }
    return architecture


def _processor(family: Family, source: Source) -> Any:
    """Load the variant of the image processor for Pillow: it is the reference, and needs no torchvision."""
    auto: Any = transformers.AutoImageProcessor
    if family.processor:
        backend: Any = transformers.image_processing_backends.PilBackend
        pillow: Any = type("PillowProcessor", (backend,), dict(family.processor))
        return pillow.from_pretrained(**source.arguments)
    return auto.from_pretrained(**source.arguments, backend="pil", trust_remote_code=False)


def _refuse_empty_tokenizer(model: str, tokenizer: Any) -> None:
    """Refuse the empty tokenizer that Transformers creates for a checkpoint without tokenizer files."""
    known = set(tokenizer(PROBE, verbose=False)["input_ids"]) - set(tokenizer.all_special_ids)
    if not known:
        raise ModelLoadError(
            f"the tokenizer of model {model!r} knows no words, because the checkpoint lacks its tokenizer files: copy "
            "them into the folder of its config.json, or choose another model"
        )
