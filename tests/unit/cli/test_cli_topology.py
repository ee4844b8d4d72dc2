"""`medkg topology`: works on files, without a fleet; every fault with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import Result

Medkg = Callable[..., Result]

POLICIES = "policies:\n  default: {attempts: 2}\n"
GOOD = """\
version: "1.0"
name: tiny
description: Reads and [parses].
applicable_sources: [files]
stages:
  - {name: ingest, type: IngestStage}
  - {name: parse, type: ParseStage, depends_on: [ingest]}
"""
BAD = """\
version: 1.0
name: bad
stages:
  - {name: ingest, type: IngestStage, polcy: default}
  - {name: parse, type: ParseStage, depends_on: [ingset]}
"""


@pytest.fixture
def folder(working_dir: Path) -> Path:
    topologies = working_dir / "topologies"
    topologies.mkdir()
    (topologies / "resilience.yaml").write_text(POLICIES)
    (topologies / "tiny.yaml").write_text(GOOD)
    return topologies


def test_the_folder_here_is_checked_whole(medkg: Medkg, folder: Path) -> None:
    result = medkg("topology", "check")
    assert result.exit_code == 0
    assert "✓ tiny.yaml  tiny 1.0, 2 stages, " in result.stdout
    assert "✓ resilience.yaml  1 policy" in result.stdout


def test_every_fault_is_shown_with_file_line_and_column(medkg: Medkg, folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)
    for arguments, file in (((), "bad.yaml"), (("topologies/bad.yaml",), "topologies/bad.yaml")):
        result = medkg("topology", "check", *arguments)
        assert result.exit_code == 1
        faults = [line for line in result.stdout.splitlines() if line.startswith("✗")]
        assert [line.split(" ")[1] for line in faults] == [f"{file}:1:10:", f"{file}:4:39:", f"{file}:5:50:"]
        assert "(did you mean 'policy'?)" in faults[1]


def test_faults_are_json_with_json(medkg: Medkg, folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)
    result = medkg("topology", "check", "--json")
    assert result.exit_code == 1
    by_file = {found["file"]: found for found in json.loads(result.stdout)["files"]}
    assert [fault["line"] for fault in by_file["bad.yaml"]["faults"]] == [1, 4, 5]
    assert by_file["tiny.yaml"]["faults"] == []
    assert len(by_file["tiny.yaml"]["digest"]) == 64


def test_two_pipelines_with_the_same_claim_are_a_fault_of_the_folder(medkg: Medkg, folder: Path) -> None:
    (folder / "other.yaml").write_text(GOOD.replace("name: tiny", "name: other"))
    result = medkg("topology", "check")
    assert result.exit_code == 1
    assert "the same claim to the source 'files'" in result.stdout


def test_policies_can_be_checked_by_themselves(medkg: Medkg, folder: Path) -> None:
    (folder / "resilience.yaml").write_text("policies:\n  default: {attempts: 99}\n")
    result = medkg("topology", "check", "topologies/resilience.yaml")
    assert result.exit_code == 1
    assert "resilience.yaml:2:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "absent.yaml"), "there is no file absent.yaml"),
        (("check", "--topologies", "absent"), "absent is not a folder"),
        (("show", "./absent.yaml"), "there is no file absent.yaml"),
        (("show", "topologies/resilience.yaml"), "holds policies"),
        (("show", "tiny", "--svg", "absent/x.svg"), "writing absent/x.svg"),
    ],
)
def test_what_is_not_there_is_wrong_usage(medkg: Medkg, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    result = medkg("topology", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("name", ["tiny", "topologies/tiny.yaml"])
def test_a_pipeline_is_drawn_by_name_or_file(medkg: Medkg, folder: Path, name: str) -> None:
    result = medkg("topology", "show", name, "--svg", "tiny.svg")
    assert result.exit_code == 0
    assert "tiny 1.0" in result.stdout
    assert "Reads and [parses]." in result.stdout
    assert "ingest" in result.stdout
    assert ElementTree.parse("tiny.svg").getroot().tag.endswith("svg")


def test_a_drawing_is_json_with_json(medkg: Medkg, folder: Path) -> None:
    found = json.loads(medkg("topology", "show", "tiny", "--json").stdout)
    assert [stage["name"] for stage in found["stages"]] == ["ingest", "parse"]
    assert len(found["digest"]) == 64


def test_an_unknown_pipeline_is_not_found_and_the_known_ones_are_named(medkg: Medkg, folder: Path) -> None:
    result = medkg("topology", "show", "tinny")
    assert result.exit_code == 4
    assert "tiny" in result.stderr


def test_a_pipeline_with_faults_is_not_drawn(medkg: Medkg, folder: Path) -> None:
    (folder / "bad.yaml").write_text(BAD)
    for name in ("bad", "topologies/bad.yaml"):
        result = medkg("topology", "show", name)
        assert result.exit_code == 1
        assert "bad.yaml:1:10" in result.stdout


def test_the_schema_is_that_of_the_model(medkg: Medkg) -> None:
    schema = json.loads(medkg("topology", "schema").stdout)
    assert set(schema["required"]) == {"version", "name", "stages"}
    assert "with" in schema["$defs"]["StageDefinition"]["properties"]
    assert "policies" in json.loads(medkg("topology", "schema", "--policies", "--json").stdout)["properties"]
