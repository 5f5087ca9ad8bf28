"""A worker with clocks around its stages: every clock ticks, and no stage is missed when its function moves."""

import pytest

from benchmarks.labels import Labels
from benchmarks.picture_server import picture_server
from benchmarks.stages.measure import stages
from benchmarks.stages.split import STAGES
from producer.settings import BUNDLED


@pytest.mark.thorough
def test_a_job_s_processor_time_is_told_by_stage_single_and_in_bulk() -> None:
    with picture_server(2) as port:
        rows = list(stages(BUNDLED, port, 32, [Labels(4), Labels(9)]))

    assert [(row["labels"], row["load"]) for row in rows] == [(4, "single"), (4, "bulk"), (9, "single"), (9, "bulk")]
    for row in rows:
        assert {stage: row[stage] for stage in STAGES if row[stage] <= 0} == {}
        assert row["model"] > 0
        assert row["client"] > 0
