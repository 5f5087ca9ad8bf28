"""The figures of docs/scaling.md, from ``benchmarks/results/scaling.json``."""

import json
from pathlib import Path
from typing import Any

from benchmarks.scaling import paper

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "scaling.json"
GPUS = (1, 8, 100, 1000)


def _report() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(RESULTS.read_text())
    return report


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def devices() -> str:
    """Describe the simulated devices and the machine of the measurement."""
    report = _report()
    machine, single, bulk = report["machine"], report["devices"]["single"], report["devices"]["bulk"]

    def said(device: dict[str, Any]) -> str:
        return (
            f"{device['forward_ms']:g} + {device['image_ms']:g} × n ms for a batch of n ≤ {device['max_batch']} "
            f"({device['images_per_s']:.1f} images/s)"
        )

    return (
        f"Measured on {machine['cores']} cores of {machine['cpu']}, which workers, Valkey and client share; load "
        f"average {machine['load_average_before'][0]:.1f} before it began. Single jobs: {said(single)}. Bulk, "
        f"{report['images_per_bulk_message']} images a message: {said(bulk)}. {report['labels']} labels; "
        f"{report['window_s']:g} s a row after {report['warm_up_s']:g} s of warming up."
    )


def rows() -> str:
    """Return the table of loads and numbers of workers."""
    heads = ["load, workers", "images/s", "of n × one", "worker ms", "client ms", "Valkey ms", "of that in commands"]
    heads += ["commands", "KB", "cores busy", "broker's limit, images/s"]
    return _table(
        heads,
        [
            [
                f"{row['load']}, {row['workers']}",
                f"{row['images_per_s']:.1f}",
                f"{row['efficiency']:.0%}",
                f"{row['worker_cpu_ms']:.2f}",
                f"{row['client_cpu_ms']:.2f}",
                f"{row['valkey_cpu_ms']:.3f}",
                f"{row['valkey_commands_ms']:.3f}",
                f"{row['commands']:.1f}",
                f"{row['valkey_kb']:.1f}",
                f"{row['busy_cores']:.1f}",
                f"{row['broker_limit_images_per_s']:,}",
            ]
            for row in _report()["rows"]
        ],
    )


def one_process() -> str:
    """Return the table of one worker that never waits for its device."""
    return _table(
        ["pictures, load", "images/s", "worker ms", "cores busy, client and Valkey included", "connections to Valkey"],
        [
            [
                f"{row['pictures']}, {row['load']}",
                f"{row['images_per_s']:.0f}",
                f"{row['worker_cpu_ms']:.2f}",
                f"{row['busy_cores']:.1f}",
                f"{row['connections_per_worker']:.0f}",
            ]
            for row in _report()["one_process"]
        ],
    )


def idle() -> str:
    """Say what waiting workers cost Valkey."""
    idle = _report()["idle"]
    waking, most = idle["waking"], idle["workers"]
    return (
        f"A worker that waits costs Valkey {idle['commands_per_worker_s']:.0f} commands and "
        f"{idle['valkey_cpu_ms_per_worker_s']:.2f} ms of CPU time a second. A message wakes one of the "
        f"waiting workers: measured with {most}, it costs {abs(waking['commands']):.1f} commands and "
        f"{waking['valkey_cpu_ms']:.3f} ms more for each worker that waits beside the one that answers."
    )


def inputs() -> str:
    """Return the table of the formulas' inputs."""
    report = _report()
    measured = paper.Measured.of(report)
    limits = measured.broker_limits
    width, height = report["fetched_picture"]["size"]
    given = {
        "d": (f"{' / '.join(f'{rate:,.0f}' for rate in paper.GPU_IMAGES_PER_S.values())} images/s", "published"),
        "s": (f"{measured.picture_bytes / 1000:.0f} KB, a JPEG of {width}x{height}", "assumed"),
        "c": (f"{measured.worker_cpu_ms:.1f} ms, fetched, bulk", "measured"),
        "k": (f"{measured.client_cpu_ms:.2f} ms, bulk", "measured"),
        "p": (f"{measured.process_images_per_s:.0f} images/s, fetched, bulk", "measured"),
        "b": (f"{limits['bulk']:,} images/s in bulk, {limits['single']:,} as single jobs", "measured"),
        "n": (f"{measured.connections:.0f} connections", "measured"),
        "i": (f"{measured.idle_ms_per_s:g} ms", "measured"),
        "share": (f"{paper.BROKER_SHARE:g}", "assumed"),
        "most": (f"{paper.MAX_CONNECTIONS:,} connections", "Valkey's default"),
        "prices": (f"${paper.GPU_USD_PER_H:.2f} a GPU, ${paper.CORE_USD_PER_H:.2f} a core, an hour", "assumed"),
    }
    meanings = {
        "d": f"images/s of one device: {' / '.join(paper.GPU_IMAGES_PER_S)} on an RTX 4090, [timm]({paper.TIMM})",
        "s": "bytes of a picture",
        "c": "worker's CPU time per image",
        "k": "client's CPU time per image",
        "p": "images/s of one worker process, at least",
        "b": "images/s at which one Valkey fills a core",
        "n": "one worker's connections to Valkey",
        "i": "CPU time of Valkey for a worker that waits, a second",
        "share": "of a Valkey's core that is planned for",
        "most": "that one Valkey accepts",
        "prices": "of machines",
    }
    return _table(
        ["", "input", "value", "from"], [[f"`{name}`", meanings[name], *given[name]] for name in given]
    ).replace("---:", "---")


def plans() -> str:
    """Return the table of plans for several numbers of GPUs at their published rates."""
    measured = paper.Measured.of(_report())
    found = [
        (model, paper.plan(measured, gpus, rate)) for model, rate in paper.GPU_IMAGES_PER_S.items() for gpus in GPUS
    ]
    heads = ["model, GPUs", "images/s", "Gbit/s", "worker cores", "producer cores", "processes"]
    heads += ["brokers, bulk", "brokers, single jobs"]
    return _table(
        heads,
        [
            [
                f"{model}, {plan.gpus:,}",
                f"{plan.images_per_s:,.0f}",
                f"{plan.network_gbit_per_s:,.1f}",
                f"{plan.worker_cores:,.0f}",
                f"{plan.producer_cores:,.0f}",
                f"{plan.processes:,}",
                f"{plan.brokers['bulk']:,}",
                f"{plan.brokers['single']:,}",
            ]
            for model, plan in found
        ],
    )


def cost() -> str:
    """Say what a million images cost."""
    measured = paper.Measured.of(_report())
    parts = []
    for model, rate in paper.GPU_IMAGES_PER_S.items():
        gpu, cores = paper.usd_per_million(measured, rate)
        parts.append(f"{model} ${gpu:.2f} for GPUs and ${cores:.2f} for cores")
    return f"A million images: {'; '.join(parts)}."


TABLES = {
    "devices": devices,
    "rows": rows,
    "one_process": one_process,
    "idle": idle,
    "inputs": inputs,
    "plans": plans,
    "cost": cost,
}
