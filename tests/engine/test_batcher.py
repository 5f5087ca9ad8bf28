"""Batching across jobs: which items share a batch, and that a bad item fails alone."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait

import pytest

from worker.engine.batch_queue import BatchQueue, BatchResult, Verdict
from worker.engine.batch_size import BatchSize
from worker.engine.batcher import Batcher, BatcherClosed

TIMEOUT_S = 10


class Device:
    """A device whose batches a test can hold, and which records them."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def run(self, items: Sequence[object]) -> list[object]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        return [f"<{item}>" for item in items]

    def hold(self) -> None:
        self.entered.clear()
        self.gate.clear()


@pytest.fixture
def device() -> Device:
    return Device()


def verdict(error: Exception) -> Verdict:
    if isinstance(error, ConnectionError):
        return "final"
    return "out of memory" if isinstance(error, MemoryError) else "one item's fault"


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(verdict_on=verdict)
    batcher.start()
    yield batcher
    batcher.close(TIMEOUT_S)


def occupy(device: Device, queue: BatchQueue[object, object]) -> Future[BatchResult[object]]:
    """Put one item on the device and hold it there, so that later items wait in the queue."""
    device.hold()
    future = queue.submit("first")
    assert device.entered.wait(TIMEOUT_S)
    return future


def outputs(futures: Sequence[Future[BatchResult[object]]]) -> list[object]:
    return [future.result(TIMEOUT_S).output for future in futures]


def test_a_lone_item_runs_alone_at_once_on_an_idle_device(batcher: Batcher, device: Device) -> None:
    queue = batcher.add_queue("images", device.run, max_batch=8)

    ride = queue.submit("owl").result(TIMEOUT_S)

    assert (ride.output, ride.batch_size) == ("<owl>", 1)


def test_items_that_arrive_while_the_device_is_busy_form_a_batch_in_order(batcher: Batcher, device: Device) -> None:
    queue = batcher.add_queue("images", device.run, max_batch=8)
    occupy(device, queue)

    futures = [queue.submit(n) for n in range(5)]
    device.gate.set()

    assert outputs(futures) == ["<0>", "<1>", "<2>", "<3>", "<4>"]
    assert {future.result().batch_size for future in futures} == {5}


def test_no_batch_is_larger_than_its_queue_s_maximum(batcher: Batcher, device: Device) -> None:
    queue = batcher.add_queue("images", device.run, max_batch=3)
    occupy(device, queue)

    futures = [queue.submit(n) for n in range(7)]
    device.gate.set()
    wait(futures, TIMEOUT_S)

    assert [len(batch) for batch in device.batches] == [1, 3, 3, 1]


def test_only_items_with_equal_keys_share_a_batch_and_all_items_run(batcher: Batcher, device: Device) -> None:
    queue = batcher.add_queue("images", device.run, max_batch=8)
    occupy(device, queue)

    futures = [queue.submit(n, key=n % 2) for n in range(6)]
    device.gate.set()
    wait(futures, TIMEOUT_S)

    assert device.batches[1:] == [[0, 2, 4], [1, 3, 5]]


WEIGHTS = {"high": 16, "default": 4, "bulk": 1}


def test_ranks_share_batches_by_weight_while_more_items_wait_than_fit(batcher: Batcher, device: Device) -> None:
    queue = batcher.add_queue("images", device.run, max_batch=7, weights=WEIGHTS)
    device.hold()
    queue.submit("first", rank="high")
    assert device.entered.wait(TIMEOUT_S)

    futures = [queue.submit((rank, n), rank=rank) for rank in reversed(WEIGHTS) for n in range(63)]
    device.gate.set()
    wait(futures, TIMEOUT_S)

    crowded = [item for batch in device.batches[1:10] for item in batch]
    by_rank = {rank: [item for item in crowded if item in [(rank, n) for n in range(63)]] for rank in WEIGHTS}
    assert [len(items) for items in by_rank.values()] == pytest.approx([48, 12, 3], abs=1)
    assert all(items == [(rank, n) for n in range(len(items))] for rank, items in by_rank.items())
    assert {len(batch) for batch in device.batches[1:]} == {7}


@pytest.mark.parametrize("max_batch", [1, 4, 20, 21, 22])
def test_no_rank_and_no_key_starves_however_many_others_arrive(
    max_batch: int, batcher: Batcher, device: Device
) -> None:
    def run(items: Sequence[object]) -> list[object]:
        if "unlike" not in items and len(device.batches) < 100:
            for _ in items:
                queue.submit("alike", key="a", rank="high")
        return device.run(items)

    queue: BatchQueue[object, object] = batcher.add_queue("images", run, max_batch=max_batch, weights=WEIGHTS)
    device.hold()
    queue.submit("first", key="a", rank="high")
    assert device.entered.wait(TIMEOUT_S)
    for _ in range(2 * max_batch):
        queue.submit("alike", key="a", rank="high")
    queue.submit("unlike", key="b", rank="bulk")
    device.gate.set()
    queue.submit("last", key="b", rank="bulk").result(TIMEOUT_S)

    first_bulk = next(number for number, batch in enumerate(device.batches) if "unlike" in batch)
    assert first_bulk <= sum(WEIGHTS.values()) + 1


def test_images_and_prompts_take_turns(batcher: Batcher, device: Device) -> None:
    images = batcher.add_queue("images", device.run, max_batch=1)
    prompts = batcher.add_queue("prompts", device.run, max_batch=1)
    occupy(device, images)

    futures = [prompts.submit(f"p{n}") for n in range(3)] + [images.submit("i0")]
    device.gate.set()
    wait(futures, TIMEOUT_S)

    assert device.batches.index(["i0"]) <= 2, "an image waited for more than one batch of prompts"


def test_a_cancelled_item_is_not_computed(batcher: Batcher, device: Device) -> None:
    queue = batcher.add_queue("images", device.run, max_batch=8)
    occupy(device, queue)
    unwanted, wanted = queue.submit("unwanted"), queue.submit("wanted")

    assert unwanted.cancel()
    device.gate.set()

    assert wanted.result(TIMEOUT_S).batch_size == 1
    assert ["unwanted"] not in device.batches


def test_one_bad_item_fails_only_itself(batcher: Batcher, device: Device) -> None:
    def run(items: Sequence[object]) -> list[object]:
        done = device.run(items)
        if "bad" in items:
            raise ValueError("bad item")
        return done

    queue = batcher.add_queue("images", run, max_batch=16)
    occupy(device, queue)
    futures = {name: queue.submit(name) for name in ["a", "b", "c", "bad", "d", "e", "f"]}
    device.gate.set()

    with pytest.raises(ValueError, match="bad item"):
        futures.pop("bad").result(TIMEOUT_S)
    assert outputs(list(futures.values())) == [f"<{name}>" for name in futures]


def test_out_of_memory_halves_the_batch_and_later_batches_too(batcher: Batcher, device: Device) -> None:
    def run(items: Sequence[object]) -> list[object]:
        done = device.run(items)
        if len(items) > 3:
            raise MemoryError
        return done

    queue = batcher.add_queue("images", run, max_batch=8)
    occupy(device, queue)
    futures = [queue.submit(n) for n in range(8)]
    device.gate.set()

    assert outputs(futures) == [f"<{n}>" for n in range(8)]
    assert queue.max_batch == 2


def test_after_a_final_error_no_item_of_the_batch_runs_again(batcher: Batcher, device: Device) -> None:
    def run(items: Sequence[object]) -> list[object]:
        done = device.run(items)
        if len(items) > 4:
            raise ValueError("any error after which the batch is halved")
        if "fatal" in items:
            raise ConnectionError
        return done

    queue = batcher.add_queue("images", run, max_batch=8)
    occupy(device, queue)
    futures = [queue.submit(item) for item in ("fatal", *"abcdefg")]
    device.gate.set()
    wait(futures, TIMEOUT_S)

    assert [len(batch) for batch in device.batches] == [1, 8, 4]
    assert all(isinstance(future.exception(0), ConnectionError) for future in futures)


def test_a_batch_that_does_not_fit_is_halved_until_its_parts_fit(batcher: Batcher, device: Device) -> None:
    def run(items: Sequence[object]) -> list[object]:
        done = device.run(items)
        if len(items) > 2:
            raise MemoryError
        return done

    queue = batcher.add_queue("images", run, max_batch=16)
    occupy(device, queue)
    futures = [queue.submit(n) for n in range(16)]
    device.gate.set()

    assert outputs(futures) == [f"<{n}>" for n in range(16)]
    assert [len(batch) for batch in device.batches[1:]] == [16, 8, 4, *[2] * 8]


def test_a_function_that_loses_items_fails_the_batch(batcher: Batcher) -> None:
    queue: BatchQueue[object, object] = batcher.add_queue("images", lambda items: list(items)[:-1], max_batch=8)

    with pytest.raises(RuntimeError, match="1 items went in, 0 came out"):
        queue.submit("x").result(TIMEOUT_S)


def test_the_device_thread_outlives_every_failure(batcher: Batcher) -> None:
    def run(items: Sequence[object]) -> list[object]:
        if items[0] == "exit":
            raise SystemExit(3)
        return list(items)

    queue = batcher.add_queue("images", run, max_batch=1)

    with pytest.raises(SystemExit):
        queue.submit("exit").result(TIMEOUT_S)
    assert queue.submit("next").result(TIMEOUT_S).output == "next"


def test_closing_fails_waiting_items_and_refuses_new_ones(device: Device) -> None:
    batcher = Batcher()
    queue = batcher.add_queue("images", device.run, max_batch=1)
    batcher.start()
    running = occupy(device, queue)
    waiting = queue.submit("waiting")

    closer = threading.Thread(target=batcher.close)
    closer.start()
    device.gate.set()
    closer.join(TIMEOUT_S)

    assert running.result(TIMEOUT_S).output == "<first>"
    with pytest.raises(BatcherClosed):
        waiting.result(TIMEOUT_S)
    with pytest.raises(BatcherClosed):
        queue.submit("late").result(TIMEOUT_S)


def test_with_a_maximum_wait_an_idle_device_waits_for_a_full_batch(device: Device) -> None:
    batcher = Batcher(max_wait_s=TIMEOUT_S)
    queue = batcher.add_queue("images", device.run, max_batch=3)
    batcher.start()

    futures = [queue.submit(n) for n in range(3)]

    assert {future.result(TIMEOUT_S).batch_size for future in futures} == {3}
    batcher.close(TIMEOUT_S)


def test_a_lone_batch_may_use_the_whole_device_and_several_share_it(device: Device) -> None:
    batcher = Batcher(threads=2)
    queue = batcher.add_queue("images", device.run, max_batch=2)
    batcher.start()
    running = occupy(device, queue)

    assert batcher.parallel == 1
    device.entered.clear()
    second = queue.submit("second")
    assert device.entered.wait(TIMEOUT_S)
    assert batcher.parallel == 2
    waiting = [queue.submit(n) for n in range(5)]
    assert batcher.parallel == 2

    device.gate.set()
    outputs([running, second, *waiting])
    batcher.close(TIMEOUT_S)


def test_a_queue_serves_its_ranks_even_if_only_another_rank_is_promised(batcher: Batcher, device: Device) -> None:
    size = BatchSize(promised=("urgent",))
    queue = batcher.add_queue("images", device.run, max_batch=8, weights={"bulk": 1}, size=size)

    assert queue.submit("only", rank="bulk").result(TIMEOUT_S).output == "<only>"
