"""The benchmark of the latency target gives all settings the same arrivals and counts every image."""

import dataclasses

from benchmarks.adaptive import PHASES, SETTINGS, TARGET_MS, measure


def test_every_setting_gets_the_same_arrivals() -> None:
    for phase in PHASES:
        assert list(phase.arrivals_s()) == list(phase.arrivals_s())
        assert all(0 < at_s < phase.seconds for at_s in phase.arrivals_s())


def test_a_short_run_of_every_phase_is_answered_and_measured() -> None:
    phases = [dataclasses.replace(phase, seconds=0.3) for phase in PHASES]

    row = measure(SETTINGS[-1], phases)

    assert row["setting"] == f"target {TARGET_MS} ms, wait 10 ms"
    for met in row["phases"]:
        assert met["images_per_s"] > 0
        assert 0 <= met["within_target"] <= 1
        assert met["p50_ms"] <= met["p95_ms"] <= met["p99_ms"]


def test_images_that_were_never_answered_count_as_late() -> None:
    rush = dataclasses.replace(PHASES[2], seconds=0.5)

    (met,) = measure(SETTINGS[0], [rush])["phases"]  # batches of one image: 83 of 390 images/s

    assert met["within_target"] < 0.7
    assert met["p95_ms"] > TARGET_MS
