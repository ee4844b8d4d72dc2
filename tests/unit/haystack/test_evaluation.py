"""Data sets in BEIR form, measures beside hand-made ones, and what a difference between two runs is worth."""

import gzip
import json
import math
from pathlib import Path

import pytest

from medkg.contracts.errors import ConfigurationError
from medkg.haystack.evaluation import by_query, measured, percentile, read_beir, read_run, significance, write_run

JUDGEMENTS = {"q1": {"a": 1, "b": 1}, "q2": {"c": 1}}
RUN = {"q1": {"a": 3.0, "x": 2.0, "b": 1.0}, "q2": {"x": 2.0, "c": 1.0}}


def dataset(folder: Path, *, packed: bool = False, nested: bool = True) -> Path:
    corpus = "\n".join(json.dumps({"_id": i, "title": f"T{i}", "text": f"text {i}"}) for i in "abc")
    if packed:
        (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.encode()))
    else:
        (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": q, "text": f"ask {q}"}) for q in ("q1", "q2", "q3"))
    )
    judged = folder / "qrels" / "test.tsv" if nested else folder / "qrels_test.tsv"
    judged.parent.mkdir(exist_ok=True)
    judged.write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\tb\t1\nq2\tc\t1\n")
    return folder


@pytest.mark.parametrize(("packed", "nested"), [(False, True), (True, False)])
def test_a_data_set_is_read_with_the_queries_that_are_judged(tmp_path: Path, packed: bool, nested: bool) -> None:
    found = read_beir(dataset(tmp_path, packed=packed, nested=nested))
    assert [(record.record_id, record.title) for record in found.records] == [("a", "Ta"), ("b", "Tb"), ("c", "Tc")]
    assert found.queries == {"q1": "ask q1", "q2": "ask q2"}
    assert found.judgements == JUDGEMENTS


def test_a_data_set_at_fault_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no corpus\.jsonl and no corpus\.jsonl\.gz"):
        read_beir(tmp_path)
    dataset(tmp_path)
    with pytest.raises(ConfigurationError, match=r"no qrels/dev\.tsv"):
        read_beir(tmp_path, "dev")
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n{"_id": 7}\n')
    with pytest.raises(ConfigurationError, match=r"corpus\.jsonl, line 2"):
        read_beir(tmp_path)
    (tmp_path / "qrels" / "test.tsv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigurationError, match="wanted are the columns"):
        read_beir(tmp_path)


def test_measures_are_those_of_the_field() -> None:
    first = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    second = 1 / math.log2(3)
    assert measured(RUN, JUDGEMENTS) == {
        "nDCG@10": pytest.approx((first + second) / 2, abs=1e-4),
        "R@100": 1.0,
        "RR": 0.75,
    }
    assert by_query(RUN, JUDGEMENTS) == {"q1": pytest.approx(first), "q2": pytest.approx(second)}


def test_a_query_without_an_answer_counts_as_nothing() -> None:
    alone = {"q2": {"c": 1.0}}
    assert measured(alone, JUDGEMENTS)["nDCG@10"] == 0.5
    assert by_query(alone, JUDGEMENTS) == {"q1": 0.0, "q2": 1.0}


def test_a_clear_difference_is_not_chance_and_none_is_certain_chance() -> None:
    worse = {str(n): 0.1 for n in range(40)}
    better = {str(n): 0.3 for n in range(40)}
    assert significance(better, worse) < 0.001
    assert significance(worse, worse) == 1.0
    mixed = {str(n): 0.1 + (0.2 if n % 2 else -0.2) for n in range(40)}
    assert significance(mixed, worse) > 0.5
    assert significance(mixed, worse) == significance(mixed, worse)
    with pytest.raises(ValueError, match="same queries"):
        significance(worse, {"0": 0.1})


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_run(RUN, tmp_path / "run.trec", "medkg")
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "q1 Q0 a 1 3.00000000 medkg"
    assert read_run(tmp_path / "run.trec") == RUN
    (tmp_path / "run.trec").write_text("nonsense\n")
    with pytest.raises(ConfigurationError, match=r"run\.trec"):
        read_run(tmp_path / "run.trec")


def test_a_percentile_of_nothing_is_nothing() -> None:
    assert (percentile([], 95), percentile([1.0, 2.0, 3.0], 50)) == (0.0, 2.0)
