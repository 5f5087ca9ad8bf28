"""Run all of nameshot from one command: Valkey, a worker and a picture server.

The tests and benchmarks use `embedded_valkey` and `WorkerProcess` too.
"""

from producer.embedded.failure import EmbeddedError
from producer.embedded.pictures import PictureServer
from producer.embedded.system import embedded_system
from producer.embedded.valkey import RunningValkey, embedded_valkey, find_server
from producer.embedded.worker import WorkerProcess

__all__ = [
    "EmbeddedError",
    "PictureServer",
    "RunningValkey",
    "WorkerProcess",
    "embedded_system",
    "embedded_valkey",
    "find_server",
]
