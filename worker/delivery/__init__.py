"""Takes messages from the queues, holds them under this worker's lease, and requeues those of dead workers.

``transport``     takes a message and records its holder in one atomic step.
``lease``         renews this worker's lease and requeues the messages of workers whose lease has expired.
``doorbell``      blocks until a queue holds a message; one message wakes one worker.
``suspects``      decides which jobs run alone, because workers died with them in hand, and which are poisoned.
``marks``         records in Redis which job runs alone, or that this worker is shutting down.
``dead_letters``  stores messages that killed workers, cannot be read or cannot be answered.
``liveness``      detects a stuck event loop, device or job.
``upkeep``        serves priorities and removes stale entries, in one elected worker.
``shutdown``      drains the worker, requeues what is left, and ends the process.

Each worker process has a name and a hash ``<prefix>:in-flight:<name>`` of the messages that it holds. There is no
visibility timeout: however long a job takes, a worker holds its message for as long as the lease lasts.
"""
