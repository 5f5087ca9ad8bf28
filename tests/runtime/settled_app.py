"""A null worker that writes to a file, once it is ready, how many objects its garbage collector skips and scans.

Environment:
    SETTLED_FILE: the file's path.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from celery import signals

from tests.chaos.null_worker import app

__all__ = ["app"]


def _write(**_: Any) -> None:
    Path(os.environ["SETTLED_FILE"]).write_text(f"{gc.get_freeze_count()} {len(gc.get_objects())}")


signals.worker_ready.connect(_write)
