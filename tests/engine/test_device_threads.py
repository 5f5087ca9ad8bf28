"""Which threads of a device run batches."""

import threading
from collections.abc import Sequence

from tests.eventually import eventually
from worker.engine.batch_queue import BatchQueue
from worker.engine.batcher import Batcher

TIMEOUT_S = 10


def test_a_device_with_two_threads_runs_two_batches_at_once() -> None:
    batcher = Batcher(threads=2)
    together = threading.Barrier(2)

    def run(items: Sequence[object]) -> list[object]:
        together.wait(TIMEOUT_S)  # this raises an exception unless the other batch runs meanwhile
        return list(items)

    queue = batcher.add_queue("images", run, max_batch=1)
    batcher.start()

    futures = [queue.submit(n) for n in range(2)]

    assert [future.result(TIMEOUT_S).output for future in futures] == [0, 1]
    batcher.close(TIMEOUT_S)


def test_items_that_come_one_by_one_all_run_in_the_thread_that_has_pytorch_s_helper_threads() -> None:
    def run(items: Sequence[int]) -> list[str]:
        return [threading.current_thread().name for _ in items]

    batcher = Batcher(threads=3)
    queue: BatchQueue[int, str] = batcher.add_queue("images", run, max_batch=2)
    batcher.start()
    ridden = set()
    for number in range(30):
        ridden.add(queue.submit(number).result(TIMEOUT_S).output)
        eventually(lambda: batcher.busy_s == 0)
    batcher.close(TIMEOUT_S)

    assert ridden == {"device-0"}
