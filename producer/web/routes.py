"""All routes of the API, and which methods a path has."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from producer.web import events, jobs, looking

ROUTERS: Final = (jobs.router, events.router, looking.router)


def methods_of(path: str) -> set[str]:
    """Return the methods of all routes of a path; none if there is no such path."""
    found = set[str]()
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, Route) and route.path_regex.match(path):
                found |= route.methods or set()
    return found
