"""The worker's settings: those that it shares with producers, and those that only a worker needs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from producer.contract.upload_token import MIN_SECRET_CHARACTERS
from producer.settings import WANTED, ProducerSettings

#: No sensible job takes longer than a day, and on some platforms a timeout of a few weeks overflows.
MAX_SECONDS: Final = 86_400
#: No process has more memory than ten terabytes, so a larger value is a typing mistake.
MAX_CACHE_BYTES: Final = 10_000_000_000_000
#: Each image in flight needs a thread, and one process cannot run many more threads than this.
MAX_CONCURRENCY: Final = 4096

Auto = Literal["auto"]


class WorkerSettings(ProducerSettings):
    """All settings of a worker process; `producer.settings.read_settings` reads them."""

    model: str = Field(
        "openai/clip-vit-large-patch14",
        min_length=1,
        description="checkpoint: a Hub id, a local folder, or `bundled`",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a Hub checkpoint")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="`float32`, `float16`, `bfloat16`, or `auto`: float32 on a CPU, float16 on a GPU with tensor cores",
    )
    max_batch: Annotated[int, Field(ge=1, le=4096)] | Auto = Field(
        "auto", description="maximum images in one forward pass"
    )
    max_wait_ms: float = Field(0, ge=0, le=1000, description="milliseconds that an idle device waits for more images")
    latency_target_ms: float = Field(
        0,
        ge=0,
        le=60_000,
        description="target for the milliseconds in which an image of `high` or `default` gets from the device's queue "
        "to its embedding; the worker sizes batches to meet the target; 0 = off",
    )
    concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] | Auto = Field(
        "auto", description="images in flight in one worker process, from single and bulk jobs together"
    )
    embedding_cache_bytes: int = Field(
        67_108_864,
        ge=0,
        le=MAX_CACHE_BYTES,
        description="size of the cache of image embeddings in one worker process; an image whose embedding is cached "
        "needs neither decoding nor a forward pass; 0 = off",
    )
    shared_cache_bytes: int = Field(
        0,
        ge=0,
        le=MAX_CACHE_BYTES,
        description="size of the cache of image embeddings that workers of one model share in Redis; has no effect "
        "with `NAMESHOT_EMBEDDING_CACHE_BYTES=0`; 0 = off",
    )
    shared_cache_url: str = Field(
        "",
        repr=False,
        description="the Redis for the shared cache; by default the result backend, whose memory the cache then uses",
    )
    job_timeout: float = Field(
        60,
        gt=0,
        le=MAX_SECONDS,
        description="time limit of a job in seconds, without its waits for places, decoders and memory that other "
        "images of the worker hold; each image of a bulk message has twice this time",
    )
    max_attempts: int = Field(
        3,
        # The machine may have caused the first death, and jobs in hand at a second death are suspects. Only a third
        # death, while one suspect runs alone, shows which job is the cause.
        ge=3,
        le=1000,  # a message that has killed a thousand workers would kill the next one too
        description="worker crashes that one message may cause before it fails as `poisoned`; at least 3",
    )
    drain_timeout: float = Field(
        10, ge=0, le=MAX_SECONDS, description="seconds that running jobs have to finish after SIGTERM"
    )
    # The worker holds each file in memory and copies it.
    max_bytes: int = Field(20_000_000, ge=1, le=10_000_000_000, description="maximum bytes of one download")
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        le=1_000_000_000,  # decoding one image of a billion pixels takes 36 GB
        description="maximum pixels of one image; this setting also bounds the memory for decoding",
    )
    decoder: Literal["process", "thread"] = Field(
        "process" if sys.platform == "linux" else "thread",
        description="where images are decoded: `process`, in confined processes (the default on Linux), or `thread`, "
        "in the worker process itself",
    )
    reducing_gap: float | None = Field(
        None,
        ge=1,
        le=100,  # with this value Pillow no longer shrinks any image in two steps
        description="Pillow's `reducing_gap`; 2 or 3 shrinks large images in two steps, which is faster and changes "
        "scores slightly (see benchmarks/README.md); if unset, scores equal those of the transformers pipeline",
    )
    fetch_timeout: float = Field(
        10,
        gt=0,
        le=MAX_SECONDS,
        description="time limit of a download in seconds, from DNS to the last byte, including up to three attempts. A "
        "server may be silent for four fifths of this time (at least 8 s); each of up to three addresses has three "
        "tenths of it (at least 3 s) to accept the connection",
    )
    fetch_ports: str = Field("80,443", description="ports that a URL may use")
    fetch_allow: str = Field(
        "",
        description="exceptions to the address rules: `CIDR:PORT` or `CIDR:*`, comma-separated",
    )
    fetch_hosts: str = Field("", description="if set, the only hosts that a URL may name (globs, comma-separated)")
    fetch_redirects: int = Field(3, ge=0, le=20, description="redirects that a download follows")
    fetch_user_agent: str = Field(
        "",
        pattern=r"[\x20-\x7e]*",
        json_schema_extra={WANTED: "printable ASCII characters"},
        description="the `User-Agent` of downloads; default `nameshot/` and the version",
    )
    fetch_ca_file: Path | None = Field(
        None, description="a PEM file of certificate authorities to trust besides the public ones"
    )
    fetch_proxy: str = Field(
        "",
        repr=False,
        description="the HTTP proxy of all downloads, `http://USER:PASSWORD@HOST:PORT`; the worker resolves and checks "
        "hosts as without a proxy, and gives the proxy only addresses. `HTTP_PROXY` and similar variables "
        "have no effect",
    )
    fetch_proxy_tunnel: bool = Field(
        False,
        description="whether the proxy tunnels `http` too (CONNECT), as it does `https`. Proxies such as Squid and "
        "tinyproxy otherwise send the address as `Host`, and a server of several sites then responds for the wrong one",
    )
    fetch_direct: str = Field(
        "", description="addresses that downloads reach without the proxy: `CIDR:PORT` or `CIDR:*`, comma-separated"
    )
    fetch_per_host: int = Field(
        64,
        ge=1,
        le=4096,
        description="maximum concurrent downloads from one host, and from one address, in one worker process",
    )
    fetch_coalesce: bool = Field(
        True,
        description="whether concurrent jobs of one queue and worker process that need the same URL share one download",
    )
    upload_url: str = Field(
        "",
        repr=False,
        description="the HTTP API as the worker reaches it, such as `http://web:8000`; the worker fetches uploads from "
        "this address, and nothing else",
    )
    upload_secret: str = Field(
        "",
        repr=False,
        pattern=rf"(?s)^(.{{{MIN_SECRET_CHARACTERS},}})?$",
        json_schema_extra={WANTED: f"at least {MIN_SECRET_CHARACTERS} characters"},
        description=f"the secret of uploads' tokens, at least {MIN_SECRET_CHARACTERS} characters, the same for "
        "the HTTP API and all workers",
    )
    http_cache_bytes: int = Field(
        0,
        ge=0,
        le=MAX_CACHE_BYTES,
        description="size of the HTTP cache in one worker process, about 600 bytes per URL; the worker requests a "
        "cached URL again only when `Cache-Control` and `ETag` require it; has no effect with "
        "`NAMESHOT_EMBEDDING_CACHE_BYTES=0`; 0 = off",
    )
    metrics_host: str = Field("127.0.0.1", description="address on which `/metrics`, `/healthz` and `/readyz` listen")
    metrics_port: int = Field(
        9808,
        ge=0,
        le=65_535,
        description="port of `/metrics`, `/healthz` and `/readyz`; if it is in use, the worker uses the next free port "
        "and logs a warning; 0 = off",
    )
    ready_file: str | None = Field(
        None,
        description="file that exists while the worker takes jobs, for supervisors; after a `kill -9` the file stays "
        "until the next start",
    )

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value, re.ASCII):
            raise PydanticCustomError("device", "auto, cpu, cuda, or one of several GPUs as in cuda:1")
        return value
