"""``python -m worker.engine_process SOCKET``."""

from __future__ import annotations

import sys
from pathlib import Path

from worker.engine_process.process import run

if __name__ == "__main__":
    raise SystemExit(run(Path(sys.argv[1])))
