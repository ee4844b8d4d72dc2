"""What measures FAISS, an embedded store and SciFact, on next to nothing."""

from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.retrieval.faiss_cost import ask_one, build_one
from benchmarks.retrieval.faiss_picture import picture
from benchmarks.retrieval.scifact import below
from benchmarks.retrieval.store_cost import ask, fill

from medkg.haystack.graphs import SegmentKind


def test_an_index_of_each_kind_is_built_asked_and_drawn(tmp_path: Path) -> None:
    points = []
    for kind in SegmentKind:
        built = build_one(1_000, kind, 16, 1, tmp_path)
        asked = ask_one(built, tmp_path)
        assert asked.recall_at_10 >= 0.95
        points.append(asdict(built) | asdict(asked))
    curves = ET.fromstring(picture(points)).findall(".//{*}circle")
    assert len(curves) == 3 * 3  # kinds and panels


async def test_a_store_is_filled_and_every_kind_of_search_is_measured(tmp_path: Path) -> None:
    assert (await fill(tmp_path, 30))["passages"] == 30
    found = await ask(tmp_path, 30)
    assert found["recall_at_10"] == 1.0
    assert set(found["milliseconds"]) == {"bm25", "dense", "sparse", "fused", "fused, one year"}


def test_what_is_below_the_published_figures_is_told() -> None:
    def found(**figures: float) -> dict[str, object]:
        return {"legs": {leg: {"measures": {"nDCG@10": figure}} for leg, figure in figures.items()}}

    assert list(below(found(bm25=0.69, dense=0.70, sparse=0.69, fused=0.72), 0.713)) == []
    told = list(below(found(bm25=0.67, dense=0.69, sparse=0.66, fused=0.69), 0.713))
    assert [fault.split()[2] for fault in told] == ["bm25", "dense", "sparse", "fused"]
