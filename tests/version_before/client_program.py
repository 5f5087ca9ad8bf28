"""A program that uses the client: it reads requests from standard input, one JSON object on each line.

It runs with the packages of either version, so it imports nothing else from this repository. Each request has a number,
a command and its arguments, and the reply has the same number. The program serves requests concurrently.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from producer import AsyncClient
from producer.errors import NameshotError

#: Submissions and status requests at the same time.
TOGETHER = 20


async def submit(client: AsyncClient, places: asyncio.Semaphore, job: dict[str, Any]) -> str:
    """Submit a job; return ``accepted`` or the name of the error."""
    async with places:
        try:
            await client.submit(job["url"], job["labels"], job_id=job["id"], queue=job.get("queue", "default"))
        except NameshotError as error:
            return type(error).__name__
        return "accepted"


async def status(client: AsyncClient, places: asyncio.Semaphore, job_id: str) -> str:
    """Return the job's state."""
    async with places:
        return (await client.look_up(job_id)).state


async def wait(client: AsyncClient, _places: asyncio.Semaphore, job_id: str) -> str | list[str]:
    """Wait for the answer; return its labels in the order of their ranking, or the error's code or name."""
    try:
        answer = await client.wait_for(job_id, 100.0)
        return [score.label for score in answer.result().ranking]
    except NameshotError as error:
        return getattr(error, "code", type(error).__name__)


async def cancel(client: AsyncClient, _places: asyncio.Semaphore, job_id: str) -> bool:
    """Cancel the job; return whether it was cancelled."""
    return await client.cancel(job_id)


Word = Callable[[AsyncClient, asyncio.Semaphore, Any], Awaitable[Any]]
WORDS: dict[str, Word] = {
    "submit": submit,
    "status": status,
    "wait": wait,
    "cancel": cancel,
}


async def serve(client: AsyncClient, places: asyncio.Semaphore, request: dict[str, Any]) -> None:
    """Run the request's command for each of its arguments, and print the reply."""
    word = WORDS[request["word"]]
    replies = await asyncio.gather(*(word(client, places, each) for each in request["each"]))
    print(json.dumps([request["number"], replies]), flush=True)


async def main() -> None:
    """Serve requests until standard input ends."""
    requests = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    places = asyncio.Semaphore(TOGETHER)
    async with AsyncClient() as client, asyncio.TaskGroup() as tasks:
        while line := await requests.readline():
            tasks.create_task(serve(client, places, json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main())
