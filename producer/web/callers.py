"""Who sends a request, and whether the key has requests left: the dependencies of every route of ``/v1``."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request

from producer.operations.rates import hit
from producer.web.front import WebFront, front_of
from producer.web.keys import Caller
from producer.web.problems import QUOTA_TYPE, Problem

#: A request costs ten, so that one which only asks for a job may cost one.
COST: Final = 10
CHEAP_COST: Final = 1


def _known(request: Request, front: WebFront) -> Caller:
    if front.ring is None:
        return front.everybody()
    given = request.headers.getlist("authorization")
    caller = front.ring.find(given[0] if len(given) == 1 else None)
    if caller is None:
        raise Problem("unauthorized", headers={"WWW-Authenticate": "Bearer"})
    return caller


async def _counted(request: Request, cost: int) -> Caller:
    front = front_of(request)
    caller = _known(request, front)
    if (rate := caller.rate) is None:
        return caller
    limit = rate.requests * COST
    done = await front.run(hit(front.prefix, caller.kid, window_s=rate.window_s, limit=limit, cost=cost))
    left = max(0, limit - done.used) // COST
    request.scope["state"]["headers"] = (
        (b"ratelimit-policy", f'"requests";q={rate.requests};w={rate.window_s}'.encode()),
        (b"ratelimit", f'"requests";r={left};t={done.wait_s}'.encode()),
    )
    if not done.is_allowed:
        raise Problem(
            "rate_limited",
            headers={"Retry-After": str(done.wait_s)},
            members={"type": QUOTA_TYPE, "violated-policies": ["requests"]},
        )
    return caller


async def caller_of(request: Request) -> Caller:
    """Return who sends this request, and count it."""
    return await _counted(request, COST)


async def asking_caller_of(request: Request) -> Caller:
    """Do the same for a request that asks for a job, which costs a tenth."""
    return await _counted(request, CHEAP_COST)


def has_metrics_key(request: Request) -> bool:
    """Return whether a request has a key that is marked for the metrics."""
    front = front_of(request)
    if front.ring is None:
        return False
    caller = front.ring.find(request.headers.get("authorization"))
    return caller is not None and caller.may_see_metrics


Counted = Annotated[Caller, Depends(caller_of)]
Asking = Annotated[Caller, Depends(asking_caller_of)]
