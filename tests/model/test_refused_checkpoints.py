"""A worker whose checkpoint has a damaged file or a wrong value does not start, and one sentence names the file."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from worker.model import load_model
from worker.model.interface import ModelLoadError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of a working CLIP checkpoint."""
    return Path(shutil.copytree(checkpoint("clip"), tmp_path / "clip"))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(str(folder), device="cpu").warm_up()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("nothing")


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda file: file.write_bytes(b""), "is empty: copy or save the checkpoint again"),
        (
            lambda file: file.write_text(POINTER),
            "is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder",
        ),
        (lambda file: file.write_bytes(bytes(300)), r"is (not JSON|damaged) \(.*\): copy or save"),
        (lambda file: file.write_bytes('{"a": 1}'.encode("utf-16")), r"is (not JSON|damaged) \(.*\): copy or save"),
        (lambda file: file.write_text("null"), r"is (JSON, but not an object|damaged \(.*\)): copy or save"),
        (link_to_itself, r"cannot be read \(Too many levels of symbolic links\): copy or save"),
        (link_to_nothing, r"cannot be read \(No such file or directory\): copy or save"),
        (make_folder, r"cannot be read \(Is a directory\): copy or save|holds no config.json"),
    ],
    ids=["empty", "pointer", "zeros", "utf-16", "null", "a link to itself", "a link to nothing", "a folder"],
)
def test_the_error_for_a_damaged_file_names_it_and_the_remedy(
    name: str, damage: Callable[[Path], Any], expected: str, folder: Path
) -> None:
    damage(folder / name)
    sentence = refusal(folder)
    assert re.search(expected, sentence), sentence
    assert name in sentence


def test_a_git_lfs_pointer_in_a_weights_file_that_is_not_read_is_ignored(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_text(POINTER)
    load_model(str(folder), device="cpu").warm_up()


@pytest.mark.parametrize(
    ("file", "path", "value", "expected"),
    [
        ("config.json", "model_type", None, "names no model_type"),
        ("config.json", "projection_dim", None, "the configuration of model .* from config.json"),
        ("config.json", "projection_dim", 0, "do not have the shapes that its config.json states"),
        ("config.json", "projection_dim", -1, "negative dimension -1"),
        ("config.json", "projection_dim", 10**12, "the config.json of .* describes a network of"),
        ("config.json", "text_config.hidden_size", "x", "'hidden_size'"),
        ("config.json", "text_config.hidden_size", 0, "from config.json"),
        ("config.json", "text_config.hidden_size", 10**6, "the config.json of .* describes a network of"),
        ("config.json", "text_config.hidden_act", "x", "from config.json"),
        ("config.json", "text_config.num_hidden_layers", 10**9, "text_config.num_hidden_layers is 1000000000"),
        ("config.json", "text_config.num_attention_heads", 0, "from config.json"),
        ("config.json", "text_config.num_attention_heads", -1, "the text tower of model"),
        ("config.json", "text_config.max_position_embeddings", 0, "'text_model.embeddings.position_embedding.weight'"),
        ("config.json", "text_config.max_position_embeddings", 10**9, "the config.json of .* describes a network of"),
        ("config.json", "text_config.eos_token_id", None, "the text tower of model"),
        ("config.json", "vision_config.num_attention_heads", -1, "because of the image processor .*or the image tower"),
        ("config.json", "vision_config.image_size", None, "from config.json"),
        ("preprocessor_config.json", "size.shortest_edge", 0, "size.shortest_edge is 0; it must be from 1 to 16384"),
        ("preprocessor_config.json", "size.shortest_edge", 10**9, "size.shortest_edge is 1000000000"),
        ("preprocessor_config.json", "crop_size.height", -1, "crop_size.height is -1"),
        ("preprocessor_config.json", "crop_size.height", 10**9, "crop_size.height is 1000000000"),
        ("preprocessor_config.json", "image_std", [0, 0, 0], "image processor"),
        ("preprocessor_config.json", "image_mean", "x", "image processor"),
        ("preprocessor_config.json", "rescale_factor", None, "image processor"),
        ("preprocessor_config.json", "resample", 99, "image processor"),
        ("tokenizer_config.json", "pad_token", None, "padding token"),
    ],
)
def test_the_error_for_a_wrong_value_names_the_file_or_the_part(
    file: str, path: str, value: object, expected: str, folder: Path
) -> None:
    content = json.loads((folder / file).read_text())
    *sections, name = path.split(".")
    section = content
    for each in sections:
        section = section[each]
    section[name] = value
    (folder / file).write_text(json.dumps(content))
    sentence = refusal(folder)
    assert re.search(expected, sentence), sentence


@pytest.mark.parametrize("name", ["~no-such-user/model", "x" * 5000])
def test_a_path_that_the_system_cannot_follow_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"cannot be read \("):
        load_model(name, device="cpu")


@contextmanager
def as_another_user() -> Iterator[None]:
    """Become another user if this is the superuser, who may read every file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", [*FILES, ""])
def test_a_file_or_folder_that_the_worker_s_user_may_not_read_is_refused(name: str, folder: Path) -> None:
    load_model(str(folder), device="cpu")  # imports modules that another user may not be able to read
    with tempfile.TemporaryDirectory() as reachable:  # the folders of pytest are closed to other users
        Path(reachable).chmod(0o755)
        copied = Path(shutil.copytree(folder, Path(reachable) / "clip"))
        (copied / name).chmod(0)
        with as_another_user():
            sentence = refusal(copied)
        (copied / name).chmod(0o755)
    assert re.search(r"cannot be read \(Permission denied\): (let the worker's user|check its path)", sentence), (
        sentence
    )
    assert str(copied / name) in sentence


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.safetensors", POINTER, "is a Git LFS pointer"),
        (
            "preprocessor_config.json",
            '{"image_processor_type": "CLIPImageProcessor", "size": 7}',
            "loads but does not run",
        ),
    ],
)
def test_an_engine_that_cannot_use_its_checkpoint_ends_with_78_and_one_sentence(
    name: str, content: str, expected: str, folder: Path, tmp_path: Path
) -> None:
    (folder / name).write_text(content)
    ended = subprocess.run(
        [sys.executable, "-m", "worker.engine_process", str(tmp_path / "engine")],
        env={**os.environ, "NAMESHOT_MODEL": str(folder), "NAMESHOT_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == os.EX_CONFIG, ended.stderr
    [critical] = [line for line in ended.stderr.splitlines() if "CRITICAL" in line]
    assert expected in critical
    assert "Traceback" not in ended.stderr
