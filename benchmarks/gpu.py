"""Measures how well the engine uses a GPU: ``python -m benchmarks.gpu``, on a machine that has one.

It measures the images per second of random checkpoints of the sizes of ViT-B/32 and ViT-L/14, from prepared pixels: of
the bare forward pass (`benchmarks.raw`) with several batch sizes; of `LocalEngine` with the batch size that a worker
would choose, and one thread per image in flight; and of an engine process that several fronts feed over shared memory.
Shares are those of the best bare rate. There is no queue, no download and no decoding. This benchmark was not run on a
GPU yet; ``python -m benchmarks.first_gpu`` measures more things in less time. ``--device cpu --model-size tiny
--seconds 1`` runs the same code anywhere, but its figures say nothing about GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.fronts import different, engine_rate, fronts_rates
from benchmarks.machine import cpu_name
from benchmarks.raw import Raw
from tests.model.checkpoints import make_checkpoint
from worker.engine.capacity import default_concurrency, measured_max_batch, rehearsed_max_batch
from worker.engine.local import PROMPT_BATCH, LocalEngine
from worker.model import Model, load_model

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gpu.json"
SIZES: Final = {"b32": "clip-vit-b32", "l14": "clip-vit-l14", "tiny": "clip"}
BATCHES: Final = (1, 8, 16, 32, 64, 128, 256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, and print and write the results; return 2 if there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="as NAMESHOT_DEVICE (%(default)s)")
    parser.add_argument(
        "--model-size", choices=SIZES, action="append", help="model to measure; may be repeated (b32 and l14)"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes of bare passes (%(default)s)")
    parser.add_argument("--fronts", type=int, nargs="+", default=[1, 2, 4], help="numbers of fronts (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are reported (%(default)s)")
    parser.add_argument("--output", type=Path, help="file to write (results/gpu.json if the device is a GPU)")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not gpu_name(given.device):
        print(
            f"benchmarks.gpu: PyTorch finds no GPU {given.device} here, so nothing was measured; "
            "--device cpu --model-size tiny --seconds 1 tries the code itself.",
            file=sys.stderr,
        )
        return 2
    report = {
        "machine": {
            "device": gpu_name(given.device) or "cpu",
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "models": [
            measured(SIZES[size], given.device, given.batches, given.fronts, given.seconds, given.rounds)
            for size in given.model_size or ("b32", "l14")
        ],
    }
    show(report)
    if output := given.output or (RESULTS if given.device.startswith("cuda") else None):
        output.parent.mkdir(exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measured(
    family: str, device: str, batches: Sequence[int], fronts: Sequence[int], seconds: float, rounds: int
) -> dict[str, Any]:
    """Return all figures of one model."""
    folder = HERE / ".scratch" / family
    if not (folder / "config.json").exists():
        make_checkpoint(family, folder)
    model = load_model(str(folder), device=device)
    model.warm_up()
    bare = {size: statistics.median(Raw(model, size).eager_per_s(seconds) for _ in range(rounds)) for size in batches}
    best = max(bare, key=bare.__getitem__)
    chosen = measured_max_batch(model) if model.device == "cpu" else rehearsed_max_batch(model, None, PROMPT_BATCH)
    in_flight = default_concurrency(chosen, model.parallel_batches)
    local = statistics.median(local_rate(model, chosen, in_flight, seconds) for _ in range(rounds))
    dtype = model.dtype
    del model  # the engine process should have the device to itself
    through = {
        count: statistics.median(rates)
        for count in fronts
        if (rates := list(fronts_rates(folder, device, chosen, count, -(-in_flight // count), seconds, rounds)))
    }
    return {
        "model": family,
        "dtype": dtype,
        "best_batch": best,
        "chosen_batch": chosen,
        "images_in_flight": in_flight,
        "bare_images_per_s": {str(size): round(rate, 1) for size, rate in bare.items()},
        "local_engine_images_per_s": round(local, 1),
        "engine_process_images_per_s": {str(count): round(rate, 1) for count, rate in through.items()},
        "local_engine_ratio": round(local / bare[best], 3),
        "engine_process_ratio": {str(count): round(rate / bare[best], 3) for count, rate in through.items()},
    }


def local_rate(model: Model, max_batch: int, threads: int, seconds: float) -> float:
    """Return the images per second of an engine in this process."""
    images = different(model.prepare(Image.new("RGB", (640, 480))).arrays["pixels"].shape)
    engine = LocalEngine(model, max_batch=max_batch, on_device_lost=lambda: None)
    try:
        return engine_rate(engine, images, threads, seconds)
    finally:
        engine.close()


def gpu_name(device: str) -> str | None:
    """Return PyTorch's name for this GPU; None if there is no such GPU."""
    import torch

    from worker.model.devices import visible_gpus

    number = int(device.partition(":")[2] or 0) if device.startswith("cuda") else visible_gpus()
    return torch.cuda.get_device_name(number) if number < visible_gpus() else None


def show(report: dict[str, Any]) -> None:
    """Print one row per way to run the model."""
    table = Table(title=f"images/s on {report['machine']['device']}")
    for name in ("model", "way", "images/s", "of bare"):
        table.add_column(name, justify="left" if name in ("model", "way") else "right")
    for model in report["models"]:
        name, best = f"{model['model']}, {model['dtype']}", str(model["best_batch"])
        table.add_row(name, f"bare, batches of {best}", f"{model['bare_images_per_s'][best]:,.0f}", "100%")
        rate, ratio = model["local_engine_images_per_s"], model["local_engine_ratio"]
        table.add_row(name, f"LocalEngine, batches of {model['chosen_batch']}", f"{rate:,.0f}", f"{ratio:.0%}")
        for count, rate in model["engine_process_images_per_s"].items():
            ratio = model["engine_process_ratio"][count]
            table.add_row(name, f"engine process, fronts: {count}", f"{rate:,.0f}", f"{ratio:.0%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
