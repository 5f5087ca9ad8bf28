"""The worker's settings: the shared ones, and what only a process with a model needs to know."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from producer.settings import ProducerSettings

#: A day: no job is worth more, and sockets and locks cannot wait for some weeks or more.
MAX_SECONDS: Final = 86_400
#: Ten terabytes, more than any process has: what is larger was mistyped.
MAX_CACHE_BYTES: Final = 10_000_000_000_000
#: Ten gigabytes. A file is held in memory, and copied there.
MAX_FILE_BYTES: Final = 10_000_000_000
#: Decoding one image of so many takes 36 GB.
MAX_PIXELS: Final = 1_000_000_000
#: No image is shrunk in two steps any more long before it.
MAX_REDUCING_GAP: Final = 100
#: The first death may be the machine's, the second leaves suspects, and only the third, alone, says which one it is.
MIN_ATTEMPTS: Final = 3
#: A message that has killed so many workers will kill the next one too.
MAX_ATTEMPTS: Final = 1000

Auto = Literal["auto"]
MaxBatch = Annotated[int, Field(ge=1, le=4096)]
#: Threads of one process, a few for each image of the largest batch.
MAX_CONCURRENCY: Final = 4096
Concurrency = Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)]


class WorkerSettings(ProducerSettings):
    """Every setting of a worker process; `producer.settings.read_settings` reads them."""

    model: str = Field(
        "openai/clip-vit-large-patch14", min_length=1, description="Hub id, a local folder, or `bundled`"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub checkpoint")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="float32 on CPU, float16 on GPUs that are fast in it; or by name, `bfloat16` too",
    )
    max_batch: MaxBatch | Auto = Field("auto", description="images in one forward pass")
    max_wait_ms: float = Field(0, ge=0, le=1000, description="0 = never wait while the device is idle")
    latency_target_ms: float = Field(
        0,
        ge=0,
        le=60_000,
        description="from joining the device's queue to the embedding, for images of `high` and `default`: batches are "
        "as large as keeps it; 0 = off",
    )
    concurrency: Concurrency | Auto = Field(
        "auto", description="images in flight in one worker process, single and bulk together"
    )
    embedding_cache_bytes: int = Field(
        67_108_864,
        ge=0,
        le=MAX_CACHE_BYTES,
        description="bytes of image embeddings kept in one worker process, so that a picture seen before needs neither "
        "decoding nor a forward pass; 0 = off",
    )
    shared_cache_bytes: int = Field(
        0,
        ge=0,
        le=MAX_CACHE_BYTES,
        description="bytes of image embeddings that workers of one model share in Redis; nothing without the "
        "embeddings' cache; 0 = off",
    )
    shared_cache_url: str = Field(
        "", repr=False, description="the Redis of those; none: the result backend, whose memory it then shares"
    )
    job_timeout: float = Field(
        60, gt=0, le=MAX_SECONDS, description="seconds from taking a job to its answer; a bulk message has twice that"
    )
    max_attempts: int = Field(
        3,
        ge=MIN_ATTEMPTS,
        le=MAX_ATTEMPTS,
        description="unclean deaths of a worker that one message may be to blame for; at least 3",
    )
    drain_timeout: float = Field(
        10, ge=0, le=MAX_SECONDS, description="seconds after SIGTERM for running jobs to finish"
    )
    max_bytes: int = Field(20_000_000, ge=1, le=MAX_FILE_BYTES, description="most bytes of one download")
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        le=MAX_PIXELS,
        description="most pixels of one image; decoded pixels in flight are bounded too",
    )
    decoder: Literal["process", "thread"] = Field(
        "process" if sys.platform == "linux" else "thread",
        description="where images are decoded: `process`, in confined processes (the default on Linux), or `thread`, "
        "in the worker's own",
    )
    reducing_gap: float | None = Field(
        None,
        ge=1,
        le=MAX_REDUCING_GAP,
        description="off: scores are the pipeline's. A number as in Pillow, 2 or 3, shrinks large images in two steps: "
        "faster, and scores differ a little (see benchmarks/README.md)",
    )
    fetch_timeout: float = Field(
        10,
        gt=0,
        le=MAX_SECONDS,
        description="seconds in all, DNS to last byte, three attempts at most. A server may be silent for four fifths "
        "of them (for 8 s, if that is more), and each of at most three addresses has three tenths (or 3 s) to connect",
    )
    fetch_ports: str = Field("80,443", description="ports a URL may name")
    fetch_allow: str = Field("", description="exceptions, `CIDR:PORT` or `CIDR:*`, comma-separated")
    fetch_hosts: str = Field("", description="when set, only these hosts (globs, comma-separated) are fetched")
    fetch_per_host: int = Field(
        64, ge=1, le=4096, description="downloads at once from one host, and from one address, in one worker process"
    )
    fetch_coalesce: bool = Field(
        True,
        description="jobs of one queue and worker process that want the same URL at the same moment share one download",
    )
    http_cache_bytes: int = Field(
        0,
        ge=0,
        le=MAX_CACHE_BYTES,
        description="bytes for remembering URLs in one worker process, some 600 a URL, so that servers are asked for a "
        "known picture only as `Cache-Control` and `ETag` demand; nothing without the embeddings' cache; 0 = off",
    )
    metrics_host: str = Field("127.0.0.1", description="where `/metrics`, `/healthz` and `/readyz` listen")
    metrics_port: int = Field(
        9808, ge=0, le=65_535, description="0 = off; a taken port is one warning, and the next free one is used"
    )
    ready_file: str | None = Field(
        None,
        description="a file that exists while the worker takes jobs, for supervisors; what a `kill -9` leaves of it is "
        "removed by the next start",
    )

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value, re.ASCII):
            raise PydanticCustomError("device", "auto, cpu, cuda, or one of several GPUs as in cuda:1")
        return value

    @field_validator("max_batch", "concurrency", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        """The environment has strings only; a union would refuse ``"16"``."""
        return int(value) if isinstance(value, str) and value.strip().isdecimal() else value
