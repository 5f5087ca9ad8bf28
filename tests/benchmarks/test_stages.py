"""A worker with clocks around its stages: every clock ticks, and no stage is missed when its function moves."""

from benchmarks.labels import Labels
from benchmarks.picture_server import picture_server
from benchmarks.stages.measure import stages
from benchmarks.stages.split import STAGES
from worker.device import BUNDLED


def test_a_job_s_processor_time_is_told_by_stage_single_and_in_bulk() -> None:
    with picture_server(2) as port:
        single, bulk = stages(BUNDLED, port, 32, Labels(4))

    assert (single["load"], bulk["load"]) == ("single", "bulk")
    for row in (single, bulk):
        assert {stage: row[stage] for stage in STAGES if row[stage] <= 0} == {}
        assert row["model"] > 0
