"""One engine process per device, and the fronts that feed it: `worker.engine.interface.Engine` across processes.

A front is an ordinary worker without a model: it fetches, decodes and prepares images, ranks labels and stores answers.
The engine process holds the model and the device's threads, and batches the requests of all fronts. A front uses the
classes of `remote` as its engine and model; `serving` and `front_connection` are the engine's side; both sides use
`frames` and `memory`.

A front and its engine exchange frames over a Unix socket. Prepared images are in anonymous shared memory, one block per
front, which the engine creates and sends to the front as a descriptor. The memory has no name, so the kernel frees it
however the two processes end. Alternatives considered: `multiprocessing.shared_memory` leaves names behind when a
process is killed, and uses /dev/shm, which has 64 MB in containers; `multiprocessing.connection` unpickles, so a
compromised front could take over the engine; ZeroMQ cannot pass descriptors.
"""
