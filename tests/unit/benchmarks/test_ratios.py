from typing import Any

import pytest
from tests.unit.benchmarks.benchmark_results import results

from medkg.benchmarks.ratios import Change, changes, incomparable, ratios_of, to_record


def slower(rate: float = 1.0, cpu: float = 1.0) -> dict[str, Any]:
    """The same run with another medkg: so much of its rate, so much of its CPU."""
    changed = results()
    changed["systems"]["medkg"]["documents_per_second"] *= rate
    changed["systems"]["medkg"]["cpu_seconds_per_1000"]["workers"] *= cpu
    return changed


def regressions(measured: dict[str, Any]) -> set[str]:
    recorded = to_record(results())["ratios"]
    return {change.name for change in changes(recorded, ratios_of(measured)) if change.is_regression}


def test_ratios_are_our_figures_over_each_peers() -> None:
    found = {name: ratio.value for name, ratio in ratios_of(results()).items()}
    assert found == pytest.approx(
        {
            "throughput / bare": 0.25,
            "worker CPU / bare": 4.0,
            "throughput / faststream-batch": 2.0,
            "worker CPU / faststream-batch": 0.5,
            "two replicas / one": 1.8,
            "CPU of real stages / plain loop": 1.05,
        }
    )


def test_a_run_without_medkg_has_no_ratios_of_systems() -> None:
    measured = results()
    del measured["systems"]["medkg"]
    assert set(ratios_of(measured)) == {"two replicas / one", "CPU of real stages / plain loop"}


def test_the_same_run_again_is_no_regression() -> None:
    assert regressions(results()) == set()


def test_a_machine_twice_as_fast_changes_no_ratio() -> None:
    faster = results()
    for found in faster["systems"].values():
        found["documents_per_second"] *= 2
        found["cpu_seconds_per_1000"]["workers"] /= 2
    assert regressions(faster) == set()


def test_throughput_may_fall_by_its_tolerance_and_no_more() -> None:
    assert regressions(slower(rate=0.71)) == set()
    assert regressions(slower(rate=0.69)) == {"throughput / bare", "throughput / faststream-batch"}


def test_cpu_may_grow_by_its_tolerance_and_no_more() -> None:
    assert regressions(slower(cpu=1.14)) == set()
    assert regressions(slower(cpu=1.16)) == {"worker CPU / bare", "worker CPU / faststream-batch"}


def test_getting_better_is_no_regression() -> None:
    assert regressions(slower(rate=3, cpu=0.3)) == set()


def test_how_much_worse_is_told_in_the_direction_of_the_figure() -> None:
    recorded = to_record(results())["ratios"]
    found = {change.name: change for change in changes(recorded, ratios_of(slower(rate=0.5, cpu=2)))}
    assert found["throughput / bare"].worse_by == pytest.approx(0.5)
    assert found["worker CPU / bare"].worse_by == pytest.approx(1.0)
    assert isinstance(found["throughput / bare"], Change)


def test_runs_of_other_sizes_are_not_compared() -> None:
    other = results()
    assert incomparable(to_record(results()), other) == ""
    other["settings"]["documents"] = 20
    assert "recorded with documents 1000, measured with 20" in incomparable(to_record(results()), other)
