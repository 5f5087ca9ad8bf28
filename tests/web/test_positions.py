"""What the API says of the place of a job in its queue."""

from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer
from tests.web.serving import LABELS, Server


def positions(server: Server, jobs: list[str]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for start in range(0, len(jobs), 100):
        answer = server.get("/v1/jobs", params={"id": jobs[start : start + 100]})
        found |= {job["id"]: job["position"] for job in answer.json()["jobs"]}
    return found


def test_positions_are_those_of_the_list_while_workers_take_and_answer(
    server: Server, valkey: ValkeyServer, worker: StockWorker
) -> None:
    jobs = [server.submit() for _ in range(150)]
    left = list(jobs)
    with valkey.connect() as broker:
        for step in range(1, 9):
            for _ in range(step):
                job_id = str(worker.take().headers["id"])
                left.remove(job_id)
                if step % 3:
                    worker.succeed(job_id, result_for(LABELS))
            assert broker.llen("nameshot.default") == len(left)
            found = positions(server, jobs)

            assert [found[job_id] for job_id in left] == list(range(len(left)))
            assert {found[job_id] for job_id in jobs if job_id not in left} == {None}


def test_queues_have_places_of_their_own(server: Server, worker: StockWorker) -> None:
    normal = [server.submit() for _ in range(2)]
    bulk = [server.submit(job={"queue": "bulk"}) for _ in range(2)]

    assert list(positions(server, [*normal, *bulk]).values()) == [0, 1, 0, 1]
    worker.take("bulk")
    assert list(positions(server, [*normal, *bulk]).values()) == [0, 1, None, 0]
