"""One engine process per device, and the fronts that feed it: `worker.engine.interface.Engine` across processes.

A front is an ordinary worker without a model: it fetches, decodes, prepares, ranks and answers. The engine process
holds the model and the device's threads, and batches what all fronts send. `remote` and `remote_model` are what a front
has instead of an engine and a model; `serving` and `guest` are the engine's side; `frames` and `memory` lie between.

Between them are a Unix socket and, for pixels, one piece of anonymous shared memory for each front, made by the engine
and handed over as a descriptor: it has no name, so that nothing is left of it however either side ends. What others
offer was judged: `multiprocessing.shared_memory` gives names, which a killed process leaves behind, and takes its space
from /dev/shm, of which containers have 64 MB; `multiprocessing.connection` unpickles, which would hand the engine to
whoever took over a front; ZeroMQ carries no descriptors.
"""
