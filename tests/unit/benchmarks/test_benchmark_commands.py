import json
from pathlib import Path

import pytest
from benchmarks.check import main as check
from benchmarks.run import arguments_of, write
from tests.unit.benchmarks.benchmark_results import results

from medkg.benchmarks.measure import SYSTEMS


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Results in a file."""
    file = tmp_path / "latest.json"
    file.write_text(json.dumps(results()))
    return file


def test_everything_but_the_long_part_is_measured_unless_told_otherwise() -> None:
    asked = arguments_of([])
    assert asked.only == SYSTEMS
    assert "growth" not in asked.parts
    assert arguments_of(["--long"]).parts[-1] == "growth"


def test_one_system_and_one_part_can_be_measured_alone() -> None:
    asked = arguments_of(["--only", "bare,medkg", "--parts", "throughput", "--documents", "10"])
    assert (asked.only, asked.parts, asked.documents) == (("medkg", "bare"), ("throughput",), 10)


def test_an_unknown_system_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments_of(["--only", "medkg,celery"])
    assert "unknown: celery; there are: medkg, bare" in capsys.readouterr().err


def test_results_are_kept_as_json_text_and_picture(tmp_path: Path) -> None:
    text = write(results(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "latest.json").read_text()) == results()
    assert (tmp_path / "out" / "latest.txt").read_text().strip() == text.strip()
    assert (tmp_path / "out" / "latest.svg").read_text().startswith("<svg")


def test_what_was_recorded_is_what_later_runs_are_compared_with(tmp_path: Path, measured: Path) -> None:
    recorded = tmp_path / "recorded.json"
    asked = ["--results", str(measured), "--recorded", str(recorded)]
    assert check(asked) == 2
    assert check([*asked, "--record"]) == 0
    assert check(asked) == 0

    slower = results()
    slower["systems"]["medkg"]["documents_per_second"] /= 2
    measured.write_text(json.dumps(slower))
    assert check(asked) == 1


def test_a_regression_is_named(tmp_path: Path, measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--results", str(measured), "--recorded", str(tmp_path / "recorded.json")]
    check([*asked, "--record"])
    slower = results()
    slower["systems"]["medkg"]["cpu_seconds_per_1000"]["workers"] *= 1.5
    measured.write_text(json.dumps(slower))
    capsys.readouterr()
    check(asked)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("REGRESSION")]
    assert [line.split("  ")[0] for line in lines] == ["worker CPU / bare", "worker CPU / faststream-batch"]


def test_runs_of_other_sizes_are_refused(tmp_path: Path, measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--results", str(measured), "--recorded", str(tmp_path / "recorded.json")]
    check([*asked, "--record"])
    other = results()
    other["settings"]["documents"] = 7
    measured.write_text(json.dumps(other))
    assert check(asked) == 2
    assert "cannot compare" in capsys.readouterr().err
