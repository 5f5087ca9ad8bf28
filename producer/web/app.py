"""Assemble the ASGI application of the HTTP front."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from producer.errors import BrokerUnavailable
from producer.version import own_version
from producer.web.bodies import BodyLimits, has_body
from producer.web.cors import Cors
from producer.web.envelope import Envelope, request_id_of
from producer.web.front import WebFront, front_of, running
from producer.web.guards import Guards, HostRule
from producer.web.metrics import Metrics
from producer.web.problems import Problem
from producer.web.routes import ROUTERS, methods_of
from producer.web.schemas import ProblemObject
from producer.web.settings import WebSettings, listed

logger = logging.getLogger(__name__)


class LifespanState(TypedDict):
    """What the lifespan gives to each request."""

    front: WebFront


def create(settings: WebSettings, *, is_loopback: bool) -> ASGIApp:
    """Return the application.

    Args:
        is_loopback: whether the server listens on a loopback address.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[LifespanState]:
        async with running(settings, metrics) as front:
            yield {"front": front}

    api = FastAPI(
        title="nameshot",
        version=own_version() or "0",
        description="Ask which of your labels fits an image.",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    for router in ROUTERS:
        api.include_router(router)
    api.add_exception_handler(Problem, _answer_problem)
    api.add_exception_handler(BrokerUnavailable, _answer_outage)
    api.add_exception_handler(HTTPException, _answer_refusal)
    api.add_exception_handler(Exception, _answer_failure)
    api.openapi = lambda: _schema(api)  # type: ignore[method-assign]  # FastAPI documents this way of extending it
    root_path, origins = settings.web_root_path, frozenset(listed(settings.web_cors_origins))
    hosts = HostRule.of(is_loopback=is_loopback, hosts=listed(settings.web_hosts))
    app: ASGIApp = BodyLimits(api, methods_of, root_path=root_path)
    app = Cors(app, origins=origins)
    app = Guards(app, hosts=hosts, origins=origins, root_path=root_path)
    return Envelope(app, metrics=metrics, root_path=root_path)


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - Starlette's handlers are typed for any exception
    return error.response(request_id_of(request.scope), front_of(request).root_path)


async def _answer_outage(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerUnavailable)  # noqa: S101 - as above
    # The sentence is for the operator: it names Redis's address.
    logger.warning("request %s: %s", request_id_of(request.scope), error)
    members = {"may_have_been_accepted": error.may_have_run} if request.method == "POST" else {}
    problem = Problem("unavailable", headers={"Retry-After": "2"}, members=members)
    return await _answer_problem(request, problem)


async def _answer_failure(request: Request, _: Exception) -> Response:
    """Answer an error of our own, which Starlette then raises again, so that `Envelope` logs it."""
    return await _answer_problem(request, Problem("internal"))


async def _answer_refusal(request: Request, error: Exception) -> Response:
    """Answer what Starlette refuses: a path or a method that no route has."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    # A body that no route reads is not read at all, so the connection cannot be used again.
    headers = {"Connection": "close"} if has_body(request.scope) else {}
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(methods_of(request.scope["path"])))
        return await _answer_problem(request, Problem("method_not_allowed", headers=headers))
    code = "not_found" if error.status_code == 404 else "internal"
    return await _answer_problem(request, Problem(code, headers=headers))


def _schema(api: FastAPI) -> dict[str, Any]:
    if api.openapi_schema is None:
        schema = get_openapi(
            title=api.title,
            version=api.version,
            summary=None,
            description=api.description,
            routes=api.routes,
        )
        problem = ProblemObject.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = schema["components"]["schemas"]
        parts |= problem.pop("$defs", {})
        parts[ProblemObject.__name__] = problem
        api.openapi_schema = schema
    return api.openapi_schema
