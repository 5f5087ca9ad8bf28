"""The page on scaling: its figures are those of the benchmark, and its example of shards works."""

import json
import re
from typing import Any

from benchmarks.scaling.plot import svg
from tests.docs.scaling_tables import RESULTS
from tests.docs.tables import ROOT, updated
from tests.valkey_server import ValkeyServer

PAGE = ROOT / "docs" / "scaling.md"


def test_the_figures_match_the_benchmark() -> None:
    assert updated(PAGE) == PAGE.read_text(), "run: python -m tests.docs.tables"


def test_the_plot_shows_the_measured_rows() -> None:
    assert (ROOT / "docs" / "scaling.svg").read_text() == svg(json.loads(RESULTS.read_text())["rows"])


def test_the_example_distributes_jobs_over_shards_and_finds_them_again(
    valkey: ValkeyServer, own_valkey: ValkeyServer
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    clients = re.search(r"shards = \[Client\(.*\n", snippet)
    assert clients
    urls = [(server.broker_url, server.result_backend) for server in (valkey, own_valkey)]
    page: dict[str, Any] = {}
    exec(snippet.replace(clients[0], f"shards = [Client(*urls) for urls in {urls}]\n"), page)
    ids = [f"job-{number}" for number in range(20)]

    for job_id in ids:
        page["submit"](job_id, "http://example.com/owl.jpg", ["owl", "fox"])

    depths = [client.queue_depths()["default"] for client in page["shards"]]
    assert sum(depths) == 20
    assert min(depths) > 0
    assert {page["shard_of"](job_id).job(job_id).status() for job_id in ids} == {"queued"}
    for client in page["shards"]:
        client.close()
