"""Runs ``python -m worker.engine_process SOCKET [HEARTBEAT]``."""

from __future__ import annotations

import sys

from worker.engine_process.main import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
