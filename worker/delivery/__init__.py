"""How a message gets here, stays ours while we live, and goes to somebody else when we do not.

``transport``  takes a message and records who holds it in one atomic step.
``lease``      says that this process lives, and returns to the queues what a dead one held.
``fairness``   which queue comes next.
``doorbell``   waits for a message without taking it.
``isolation``  runs a message that may have killed a worker with nobody beside it.
``dead_letters`` keeps what killed workers or could not be read.
``shutdown``   how a worker ends: finish, return, leave.

Each worker process has a name and a hash ``<prefix>:in-flight:<name>`` of the messages it holds. There is no
visibility timeout: a message is held for exactly as long as its holder's lease is alive, however long the job takes.
"""
