"""``nameshot worker --processes`` with a real small model, and an engine in this process with fronts beside it."""

from tests.acceptance.conftest import origin, start_worker
from tests.model.conftest import checkpoint, loaded, pipeline

__all__ = ["checkpoint", "loaded", "origin", "pipeline", "start_worker"]
