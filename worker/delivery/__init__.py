"""How a message gets here, stays ours while we live, and goes to somebody else when we do not.

``transport``  takes a message and records who holds it in one atomic step.
``lease``      says that this process lives, and returns to the queues what a dead one held.
``fairness``   which queue comes next.
``doorbell``   waits for a message, which wakes one of those who wait.
``suspects``   what may have killed workers runs alone (``isolation``), and may be found to be poison.
``marks``      says in Redis what runs alone, or that this worker is leaving.
``dead_letters``  keeps what killed workers or could not be read.
``liveness``   whether this process still does its work.
``shutdown``   how a worker ends: finish, return, leave.

Each worker process has a name and a hash ``<prefix>:in-flight:<name>`` of the messages it holds. There is no
visibility timeout: a message is held for exactly as long as its holder's lease is alive, however long the job takes.
"""
