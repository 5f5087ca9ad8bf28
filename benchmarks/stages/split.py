"""Computes the cost of a job by stage from two readings of a worker's clocks."""

from __future__ import annotations

from collections.abc import Mapping

#: The stages in the order of a job's path; `celery` is the time of the worker process that no other stage covers.
STAGES = ("celery", "fetch", "digest", "decode", "batching", "rank", "job", "answer", "valkey")


def by_stage(before: Mapping[str, float], after: Mapping[str, float], jobs: int) -> dict[str, float]:
    """Return the CPU milliseconds per job by stage, and those of the model, from two readings of CPU seconds.

    Args:
        before, after: ``process``, ``native`` (threads that compute for the model), ``decoders``, ``valkey``,
            ``client``, and the worker's stages.

    Returns:
        Each of `STAGES`; ``model``; ``outside``, the sum of all stages but the model; ``queue_share``, the share of
        Celery, storing answers and Valkey in that sum; and ``client``, which is in none of these sums.
    """
    used = {name: (after[name] - before.get(name, 0.0)) / jobs * 1000 for name in after}
    process_ms, native_ms, decoders_ms = (used.pop(name) for name in ("process", "native", "decoders"))
    valkey_ms, client_ms = used.pop("valkey"), used.pop("client")
    celery_ms = process_ms - native_ms - sum(used.values())
    used["decode"] = used.get("decode", 0.0) + decoders_ms
    used["model"] = used.get("model", 0.0) + native_ms
    used |= {"celery": celery_ms, "valkey": valkey_ms}
    outside_ms = sum(used.get(stage, 0.0) for stage in STAGES)
    queue_ms = celery_ms + used.get("answer", 0.0) + valkey_ms
    row = {stage: round(used.get(stage, 0.0), 3) for stage in (*STAGES, "model")}
    return {
        **row,
        "outside": round(outside_ms, 3),
        "queue_share": round(queue_ms / outside_ms, 3),
        "client": round(client_ms, 3),
    }
