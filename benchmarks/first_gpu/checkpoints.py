"""Makes a checkpoint while the first steps run: ``python -m benchmarks.first_gpu.checkpoints GIVEN FAMILY``."""

from __future__ import annotations

import sys

from benchmarks.first_gpu.given import given_from

if __name__ == "__main__":
    given_from(sys.argv[1]).make_checkpoint(sys.argv[2])
