"""Loads a checkpoint by name, or explains in one sentence why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import hf_hub_download

from worker.model.devices import compute_exactly, pick_device, pick_dtype
from worker.model.dual import DualEncoder
from worker.model.families import EXACT_PARAMETERS, FAMILIES, REFUSED, Family, scale_and_bias
from worker.model.forward import meaning_of
from worker.model.interface import DeviceLostError, Logits, Model, ModelLoadError, ModelOutOfMemoryError
from worker.model.pixels import Preparation, preparation
from worker.model.prompts import PROBE
from worker.model.refusals import explained, quiet
from worker.model.text_tower import measured_prompts


def load(model: str, *, revision: str | None, device: str, dtype: str) -> Model:
    """Implement `worker.model.load_model`."""
    target = pick_device(device)
    torch_dtype = pick_dtype(dtype, target)
    if torch_dtype == torch.float32:
        compute_exactly()
    folder = Path(model).expanduser()
    local = _is_folder(model, folder, revision)
    source = str(folder) if local else model
    with quiet():
        with explained(model, revision, "configuration"):
            # All files are loaded from one commit, even if the branch moves meanwhile, and results can name it.
            commit = None if local else _commit(model, revision)
            config = transformers.AutoConfig.from_pretrained(source, revision=commit, trust_remote_code=False)
        family = _family(model, config.model_type)
        with explained(model, revision, "weights"):
            network, report = _architecture(model, family).from_pretrained(
                source,
                config=config,
                revision=commit,
                dtype=torch_dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report lists weights of a wrong size like missing ones
            )
        _refuse_missing_weights(model, family, report)
        with explained(model, revision, "tokenizer"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=commit, trust_remote_code=False)
            _refuse_empty_tokenizer(model, tokenizer)
        with explained(model, revision, "text tower"):
            prompts = measured_prompts(model, tokenizer, network.eval(), family, config, torch_dtype)
        with explained(model, revision, "image processor"):
            processor = _processor(family, source, commit)
        with explained(model, revision, "scale of scores"):
            logits = Logits(*scale_and_bias(network))
        with explained(model, revision, f"move to {target}"):
            network = _moved(network.requires_grad_(False), target, model)
    return DualEncoder(
        name=folder.resolve().name if local else model,
        revision=commit,
        network=network,
        dtype=torch_dtype,
        family=family,
        preparation=preparation(processor),
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
    folder = Path(model).expanduser()
    source = str(folder) if _is_folder(model, folder, None) else model
    with quiet(), explained(model, revision, "image processor"):
        return preparation(_processor(_family(model, model_type), source, revision))


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


def _is_folder(model: str, folder: Path, revision: str | None) -> bool:
    """Return whether the name is that of a checkpoint's folder, not of the Hub; raise `ModelLoadError` if neither."""
    if not model.strip():
        raise ModelLoadError("no model is named: name the folder of a saved checkpoint, or a Hub id")
    if folder.is_dir():
        if revision is not None:
            raise ModelLoadError(
                f"revision {revision!r} was requested, but {model!r} is a folder here and has no revisions: leave it "
                "out, or name a Hub id"
            )
        if not (folder / "config.json").is_file():
            raise ModelLoadError(f"folder {model!r} holds no config.json: name the folder of a saved checkpoint")
        return True
    if folder.exists():
        raise ModelLoadError(f"{model!r} is a file: name the folder of a saved checkpoint, or a Hub id")
    if model.startswith((".", "~", "/", "\\")) or model.count("/") > 1 or "\\" in model:
        raise ModelLoadError(
            f"there is no folder {model!r}: check the path, or name a Hub id such as openai/clip-vit-base-patch32"
        )
    return False


def _commit(model: str, revision: str | None) -> str:
    """Return the commit of a Hub checkpoint's revision, from the Hub or, if that is unreachable, from the cache."""
    # The cache stores the files of each commit in a folder named after the commit.
    return Path(hf_hub_download(model, "config.json", revision=revision)).parent.name


def _family(model: str, model_type: str) -> Family:
    if model_type in REFUSED:
        raise ModelLoadError(
            f"model {model!r} is a {model_type} checkpoint, and {REFUSED[model_type]}: choose another model"
        )
    if model_type not in FAMILIES:
        raise ModelLoadError(
            f"model {model!r} is of the type {model_type!r}, which does not classify images zero-shot: choose one of "
            f"{', '.join(sorted(FAMILIES))}"
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


def _refuse_missing_weights(model: str, family: Family, report: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights, because Transformers fills in random ones."""
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key, *_ in report["mismatched_keys"])
    if absent:
        raise ModelLoadError(
            f"model {model!r} lacks {len(absent)} of the weights of a {family.architecture}, {absent[0]!r} the first "
            "of them, so its scores would be random: choose a checkpoint trained for zero-shot classification"
        )


def _processor(family: Family, source: str, revision: str | None) -> Any:
    """Load the image processor that uses Pillow, which is the reference and does not need torchvision."""
    auto: Any = transformers.AutoImageProcessor
    if family.processor:
        backend: Any = transformers.image_processing_backends.PilBackend
        pillow: Any = type("PillowProcessor", (backend,), dict(family.processor))
        return pillow.from_pretrained(source, revision=revision)
    return auto.from_pretrained(source, revision=revision, backend="pil", trust_remote_code=False)


def _refuse_empty_tokenizer(model: str, tokenizer: Any) -> None:
    """Refuse the empty tokenizer that Transformers creates for a checkpoint without tokenizer files."""
    known = set(tokenizer(PROBE, verbose=False)["input_ids"]) - set(tokenizer.all_special_ids)
    if not known:
        raise ModelLoadError(
            f"the tokenizer of model {model!r} knows no words, because the checkpoint lacks its tokenizer files: copy "
            "them into the folder of its config.json, or choose another model"
        )
