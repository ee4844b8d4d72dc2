"""Learning a dictionary from registry records."""

import json
from pathlib import Path

import pytest

from medkg.extract.dictionary import Term, parse_dictionary
from medkg.extract.learn import learn, main, read_records


def record(**modules: object) -> dict[str, object]:
    return {"protocolSection": {"identificationModule": {"nctId": "NCT99009999"}}, "derivedSection": modules}


HERNIA = record(
    conditionBrowseModule={
        "meshes": [{"id": "D000007405", "term": "Intervertebral Disc Displacement"}],
        "ancestors": [{"id": "D013122", "term": "Spinal Diseases"}],
        "browseLeaves": [
            {"id": "M1", "name": "Intervertebral Disc Displacement", "asFound": "Herniated Disc", "relevance": "HIGH"},
            {"id": "M2", "name": "Nothing Known", "asFound": "Never", "relevance": "LOW"},
        ],
    },
)
DRUG = record(interventionBrowseModule={"meshes": [{"id": "C582203", "term": "dupilumab"}]})


def test_descriptors_ancestors_and_what_was_found_become_terms(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(HERNIA))
    (tmp_path / "b.json").write_text(json.dumps([DRUG, HERNIA]))
    assert learn(read_records([tmp_path])) == [
        Term("C582203", "intervention", "dupilumab"),
        Term("D007405", "condition", "Intervertebral Disc Displacement", ("Herniated Disc",)),
        Term("D013122", "condition", "Spinal Diseases"),
    ]


def test_the_order_of_records_does_not_show(tmp_path: Path) -> None:
    other = record(conditionBrowseModule={"meshes": [{"id": "D007405", "term": "Disc Displacement, Intervertebral"}]})
    files = []
    for name, content in (("1.json", HERNIA), ("2.json", other), ("3.json", DRUG)):
        (tmp_path / name).write_text(json.dumps(content))
        files.append(tmp_path / name)
    assert learn(read_records(files)) == learn(read_records(files[::-1]))


def test_a_file_that_is_no_record_is_told_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{not json")
    (tmp_path / "b.json").write_text('{"derivedSection": 3}')
    (tmp_path / "c.json").write_text("[" * 100_000)
    (tmp_path / "d.json").write_text(json.dumps(DRUG))
    assert [term.mesh_id for term in learn(read_records([tmp_path]))] == ["C582203"]
    assert capsys.readouterr().err.count("skipped") == 3


def test_the_command_writes_a_dictionary_and_says_how_to_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(HERNIA))
    out = tmp_path / "d.tsv"
    assert main([str(tmp_path), "--out", str(out)]) == 0
    assert len(parse_dictionary(out.read_text(), "d.tsv")) == 2
    assert "dictionary_sha256: " in capsys.readouterr().out
