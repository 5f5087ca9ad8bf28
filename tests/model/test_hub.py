"""Checkpoints that are loaded by Hub id, from a local server that answers as the Hub does."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.model.hub_stand_in import COMMIT, TOKEN, Hub, serve
from worker.model.interface import ModelLoadError
from worker.model.refusals import explained


@pytest.fixture
def hub(checkpoint: Callable[[str], Path], tmp_path: Path) -> Iterator[Hub]:
    empty, adapter, both = (tmp_path / name for name in ("empty", "adapter", "both"))
    empty.mkdir()
    adapter.mkdir()
    shutil.copytree(checkpoint("clip"), both)
    for folder in (adapter, both):
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x/y"}')
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
    with serve(
        Hub(
            {
                "someone/small-clip": checkpoint("clip"),
                "someone/gated": checkpoint("siglip"),
                "someone/empty": empty,
                "someone/adapter": adapter,
                "someone/both": both,
            },
            gated=frozenset({"someone/gated"}),
            refused={"someone/private": (403, ""), "someone/disabled": (403, "")},
        )
    ) as running:
        yield running


# Prints one line for each model: its name and revision, or why it was refused.
PROGRAM = """
import json, sys, torch
from worker.model import load_model
from worker.model.interface import ModelLoadError
torch.set_num_threads(1)
for name, revision in json.loads(sys.argv[1]):
    try:
        model = load_model(name, revision=revision, device="cpu")
        model.warm_up()
        print(json.dumps([model.name, model.revision]))
    except ModelLoadError as refusal:
        print(json.dumps(str(refusal)))
"""
LOADED = ["someone/small-clip", COMMIT]
Wanted = Sequence[tuple[str, str | None, str | list[str]]]


def load_all(wanted: Wanted, hub: Hub, home: Path, settings: Mapping[str, str] | None = None) -> None:
    """Load checkpoints in a process of their own, because the Hub's client reads its settings when it is imported."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        **(settings or {}),
    }
    models = json.dumps([(name, revision) for name, revision, _ in wanted])
    program = subprocess.run([sys.executable, "-c", PROGRAM, models], env=environment, capture_output=True, check=False)
    assert program.stderr == b""
    for line, (_, _, expected) in zip(program.stdout.splitlines(), wanted, strict=True):
        found = json.loads(line)
        if isinstance(expected, str):
            assert expected in found
        else:
            assert found == expected


def test_a_hub_id_is_loaded_with_its_commit_or_refused_with_the_reason(hub: Hub, tmp_path: Path) -> None:
    wanted: Wanted = [
        ("someone/small-clip", None, LOADED),
        ("someone/small-clip", "v2", LOADED),
        ("someone/small-clip", COMMIT, LOADED),
        ("someone/small-clip", "v3", "no revision 'v3'"),
        ("someone/unknown", None, "the Hub shows no model 'someone/unknown', and there is no such folder here"),
        ("someone/gated", None, "'someone/gated' is gated: accept its terms on the Hub and set HF_TOKEN"),
        ("someone/private", None, f"the Hub at {hub.url} refuses access to model 'someone/private' (403)"),
        ("someone/empty", None, "'someone/empty' lacks a file on the Hub"),
        ("someone/adapter", None, "'someone/adapter' holds an adapter (adapter_config.json)"),
        ("someone/both", None, "'someone/both' holds an adapter (adapter_config.json)"),
    ]
    load_all(wanted, hub, tmp_path / "home")


def test_a_token_gives_access_to_a_gated_model_and_is_not_sent_to_the_store(hub: Hub, tmp_path: Path) -> None:
    load_all([("someone/gated", None, ["someone/gated", COMMIT])], hub, tmp_path / "home", {"HF_TOKEN": TOKEN})
    assert any(path.startswith("store/") for _, path, _ in hub.requests)


def test_an_interrupted_download_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = 1
    load_all([("someone/small-clip", None, LOADED)], hub, tmp_path / "home")
    assert [method for method, path, _ in hub.requests if path.startswith("store/")].count("GET") == 2


def test_offline_the_error_for_a_misspelt_folder_says_that_it_does_not_exist_without_a_request_to_the_hub(
    hub: Hub, tmp_path: Path
) -> None:
    wanted: Wanted = [("modles/mine", None, "model 'modles/mine' is no folder here and not in the cache")]

    load_all(wanted, hub, tmp_path / "home", {"HF_HUB_OFFLINE": "1"})

    assert hub.requests == []


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_model_in_the_cache_starts_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    load_all([("someone/small-clip", None, LOADED)], hub, home)
    hub.requests.clear()
    load_all(
        [("someone/small-clip", None, LOADED), ("someone/gated", None, "and HF_HUB_OFFLINE forbids its download")],
        hub,
        home,
        {"HF_HUB_OFFLINE": "1"},
    )
    assert hub.requests == []
    hub.status = 503
    load_all([("someone/small-clip", None, LOADED)], hub, home)
    hub.status = 451
    load_all(
        [
            ("someone/small-clip", None, LOADED),
            ("someone/gated", None, f"the Hub at {hub.url} responds with status 451"),
        ],
        hub,
        home,
    )


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_the_error_for_a_damaged_file_in_the_cache_names_the_folder_to_delete(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    load_all([("someone/small-clip", None, LOADED)], hub, home)
    folder = home / "hub" / "models--someone--small-clip"
    weights = folder / "snapshots" / COMMIT / "model.safetensors"
    content = weights.read_bytes()
    weights.resolve().write_bytes(content[: len(content) // 2])
    load_all([("someone/small-clip", None, f"delete {str(folder)!r}, so that it is downloaded again")], hub, home)
    shutil.rmtree(folder)
    load_all([("someone/small-clip", None, LOADED)], hub, home)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space there, or set HF_HOME"),
        (errno.EACCES, "let the worker's user write there, or set HF_HOME"),
        (errno.EROFS, "mount it writable, or set HF_HOME"),
    ],
)
def test_the_error_for_a_cache_that_cannot_be_written_names_the_remedy(number: int, advice: str) -> None:
    with pytest.raises(ModelLoadError, match=advice), explained("weights", "someone/small-clip"):
        raise OSError(number, os.strerror(number))
