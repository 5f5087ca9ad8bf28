"""One engine process per device, and the fronts that feed it: `worker.engine.interface.Engine` across processes.

A front is an ordinary worker without a model: it fetches, decodes, prepares, ranks and answers. The engine process
holds the model and the device's threads, and batches the requests of all fronts. A front has the classes of
`remote` in place of an engine and a model; `serving` and `front_connection` are the engine's side; both sides share
`frames` and `memory`.

They talk over a Unix socket. Pixels travel through anonymous shared memory, one block per front, which the engine
creates and passes as a descriptor; it has no name, so nothing is left behind however either side ends. Alternatives
considered: `multiprocessing.shared_memory` leaves names behind when a process is killed, and uses /dev/shm, which has
64 MB in containers; `multiprocessing.connection` unpickles, so a compromised front could take over the engine; ZeroMQ
cannot pass descriptors.
"""
