"""``nameshot serve`` with an exception planted where a job is looked up; its text is the first argument."""

import sys
from typing import Any

from producer.web import jobs
from producer.web.serving import serve


def main() -> int:
    text = sys.argv[1]

    async def find_one(*_: Any) -> Any:
        raise RuntimeError(text)

    vars(jobs)["find_one"] = find_one
    return serve("127.0.0.1", 0, 1)


if __name__ == "__main__":
    sys.exit(main())
