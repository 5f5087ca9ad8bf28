"""A null worker whose wall clock is ``CLOCK_AHEAD_S`` seconds ahead."""

# ruff: noqa: E402 - modules that take names from `time` or `datetime` must find the wrong clock

from __future__ import annotations

import os

from tests.wrong_clock import set_ahead

set_ahead(float(os.environ["CLOCK_AHEAD_S"]))

from tests.chaos.null_worker import app

__all__ = ["app"]
