"""Everything a person needs to try nameshot, as child processes of one command: Valkey, a worker, pictures.

`embedded_valkey` and `WorkerProcess` are also what the tests and benchmarks run on.
"""

from producer.embedded.failure import EmbeddedError
from producer.embedded.pictures import PictureServer
from producer.embedded.system import EmbeddedSystem, embedded_system
from producer.embedded.valkey import RunningValkey, embedded_valkey, find_server
from producer.embedded.worker import WorkerProcess

__all__ = [
    "EmbeddedError",
    "EmbeddedSystem",
    "PictureServer",
    "RunningValkey",
    "WorkerProcess",
    "embedded_system",
    "embedded_valkey",
    "find_server",
]
