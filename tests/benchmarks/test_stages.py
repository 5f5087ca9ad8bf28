"""The benchmark's clocks around a worker's stages all measure some time, so a moved function cannot be missed."""

import pytest

from benchmarks.labels import Labels
from benchmarks.picture_server import picture_server
from benchmarks.stages.measure import stages
from benchmarks.stages.split import STAGES
from producer.settings import BUNDLED


@pytest.mark.thorough
def test_the_cpu_time_of_single_and_bulk_jobs_is_measured_by_stage() -> None:
    with picture_server(2) as port:
        rows = list(stages(BUNDLED, port, 32, [Labels(4), Labels(9)]))

    assert [(row["labels"], row["load"]) for row in rows] == [(4, "single"), (4, "bulk"), (9, "single"), (9, "bulk")]
    for row in rows:
        assert {stage: row[stage] for stage in STAGES if row[stage] <= 0} == {}
        assert row["model"] > 0
        assert row["client"] > 0
