"""The routes that tell about the API itself: information, queues, health, metrics and the codes of problems."""

from __future__ import annotations

import html
from functools import cache
from ipaddress import ip_address
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from producer.contract.labels import MAX_LABEL_CHARACTERS, MAX_LABELS
from producer.version import own_version
from producer.web.callers import Counted, has_metrics_key
from producer.web.documented import EVERYWHERE, KEYED, problems
from producer.web.front import front_of
from producer.web.problems import CODES, Problem
from producer.web.replies import Reply
from producer.web.schemas import InfoObject, QueuesObject, StatusObject

router = APIRouter(redirect_slashes=False)

#: A proxy adds one of these to what it passes on.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


@router.get(
    "/v1/info",
    operation_id="info",
    summary="What this API is",
    responses={200: {"model": InfoObject}, **problems(*EVERYWHERE)},
)
async def info(request: Request) -> Response:
    """Describe the API; no key is needed."""
    front = front_of(request)
    limits = {
        "labels": MAX_LABELS,
        "label_characters": MAX_LABEL_CHARACTERS,
        "wait_s": front.settings.web_max_wait,
    }
    auth = "open" if front.ring is None else "key"
    return Reply({"version": _version(), "auth": auth, "uploads": False, "webhooks": False, "limits": limits})


@cache
def _version() -> str | None:
    """Return the version, whose file is read once."""
    return own_version()


@router.get(
    "/v1/queues",
    operation_id="queues",
    summary="How much waits, and how many workers there are",
    responses={200: {"model": QueuesObject}, **problems(*KEYED)},
)
async def queues(request: Request, caller: Counted) -> Response:  # noqa: ARG001 - the dependency demands a key
    """Describe the queues, as they were at most a second ago."""
    front = front_of(request)
    return Reply(await front.queues.get())


@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz",
    operation_id="health",
    summary="Whether this process serves requests",
    responses={200: {"model": StatusObject}, **problems("body_too_large")},
)
async def health() -> Response:
    """Answer while the event loop turns, also without Redis."""
    return Reply({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="ready",
    summary="Whether this process can accept jobs",
    responses={200: {"model": StatusObject}, **problems("body_too_large", "unavailable", "shutting_down")},
)
async def ready(request: Request) -> Response:
    """Answer 503 with the reason while Redis is down or this process ends."""
    front = front_of(request)
    if front.stopping.is_set():
        raise Problem("shutting_down")
    if reason := await front.fault.get():
        raise Problem("unavailable", reason, headers={"Retry-After": "2"})
    return Reply({"status": "ok"})


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Answer programs of this machine, unless a proxy passes the request on, and keys that are marked for it."""
    front = front_of(request)
    is_near = request.client is not None and ip_address(request.client.host).is_loopback
    is_forwarded = any(name in request.headers for name in _FORWARDED)
    if not ((is_near and not is_forwarded) or has_metrics_key(request)):
        raise Problem("not_found")
    return Response(front.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/errors/{code}", include_in_schema=False)
async def explain(request: Request, code: str) -> Response:
    """Explain a code, as a page for people or as JSON."""
    known = CODES.get(code)
    if known is None:
        raise Problem("not_found")
    if "text/html" in request.headers.get("accept", ""):
        text = html.escape(f"{known.title}; {known.advice}.")
        return HTMLResponse(
            f'<!doctype html><html lang="en"><title>{code}</title><h1>{code}</h1><p>Status {known.status}: {text}'
        )
    return Reply({"code": code, "status": known.status, "title": known.title, "action": known.advice})
