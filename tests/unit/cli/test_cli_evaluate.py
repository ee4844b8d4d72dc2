"""`medkg evaluate`: what it refuses, what it writes, and, once, a small data set through a fleet of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import Result

from medkg.cli.evaluation import Evaluation, LegFigures, comparison, write_results
from medkg.cli.evaluation_fleet import write_records
from medkg.cli.evaluation_plot import plot
from medkg.contracts.errors import ConfigurationError
from medkg.haystack.evaluation import Record, measured, write_run

Medkg = Callable[..., Result]
JUDGEMENTS = {"q1": {"a": 1}, "q2": {"b": 1}}
RUN = {"q1": {"a": 1.0, "b": 0.5}, "q2": {"a": 1.0, "b": 0.5}}


def evaluation() -> Evaluation:
    figures = LegFigures(measured(RUN, JUDGEMENTS), 1.5, 3.0, 4.0)
    return Evaluation("mini", 2, 2, "hashing {}", "embedded", 1.0, 2_000, {"bm25": figures}, {"bm25": RUN}, JUDGEMENTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dataset", "trec:x"), "wanted is beir:DIR"),
        (("--dataset", "beir:x", "--embedder", "{"), "--embedder is no JSON"),
        (("--dataset", "beir:nowhere"), "there is no corpus.jsonl"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_a_fleet_is_started(
    medkg: Medkg, arguments: tuple[str, ...], said: str
) -> None:
    result = medkg("evaluate", *arguments)
    assert result.exit_code != 0
    assert said in " ".join(result.stderr.split())


def test_names_of_files_are_numbers_whatever_the_ids_are(tmp_path: Path) -> None:
    records = [Record("../../etc/passwd", "Title\n# not", "A text.\n\nIts end."), Record("b", "", "Alone.")]
    names = write_records(records, tmp_path)
    assert names == {"0000000.md": "../../etc/passwd", "0000001.md": "b"}
    assert (tmp_path / "0000" / "0000000.md").read_text() == "# Title # not\n\nA text. Its end.\n"
    assert (tmp_path / "0000" / "0000001.md").read_text() == "Alone.\n"


def test_figures_plot_and_rankings_are_kept(tmp_path: Path) -> None:
    account = write_results(evaluation(), tmp_path / "out", {})
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == account
    assert account["legs"]["bm25"]["measures"]["RR"] == 0.75
    assert (tmp_path / "out" / "run-bm25.trec").read_text().splitlines()[0].startswith("q1 Q0 a 1 ")
    assert ElementTree.fromstring((tmp_path / "out" / "evaluation.svg").read_text()).tag.endswith("svg")


def test_an_earlier_evaluation_is_compared_query_by_query(tmp_path: Path) -> None:
    write_run({"q1": {"a": 1.0}, "q2": {"b": 1.0}}, tmp_path / "run-bm25.trec", "t")
    assert comparison(evaluation(), tmp_path)["bm25"]["change"] < 0
    with pytest.raises(ConfigurationError, match=r"no run-\*"):
        comparison(evaluation(), tmp_path / "nothing")
    write_run({"other": {"a": 1.0}}, tmp_path / "run-bm25.trec", "t")
    with pytest.raises(ConfigurationError, match="other questions"):
        comparison(evaluation(), tmp_path)


def test_a_title_cannot_break_out_of_the_plot() -> None:
    drawn = ElementTree.fromstring(plot("<script>&", {"<leg>": {"nDCG@10": 0.5}}))
    assert [element.text for element in drawn.iter() if element.text and "<" in element.text] == ["<script>&", "<leg>"]
