"""Drawings: every stage and edge is there, nothing overlaps, and hostile text stays text."""

import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkg.contracts.topology import Topology
from medkg.contracts.topology_drawing import as_svg, as_text
from medkg.contracts.topology_layout import Layout, in_order, lay_out
from medkg.contracts.topology_words import duration

SVG = "{http://www.w3.org/2000/svg}"

BRANCHED = Topology.model_validate(
    {
        "version": "2.1",
        "name": "branched",
        "description": "Extraction beside embedding.",
        "applicable_sources": ["files"],
        "stages": [
            {"name": "ingest", "type": "IngestStage", "policy": "polite-api"},
            {"name": "parse", "type": "ParseStage", "uses": "auto", "depends_on": ["ingest"]},
            {"name": "chunk", "type": "ChunkStage", "uses": "sections", "depends_on": ["parse"]},
            {
                "name": "extract",
                "type": "ExtractStage",
                "uses": "llm",
                "policy": "gpu-bound",
                "depends_on": ["parse"],
                "when": {"field": "kind", "equals": "article"},
            },
            {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
            {
                "name": "wait",
                "type": "Gate",
                "condition": {"ledger_field": "pdf_ir_ready"},
                "resume_stage": "kg",
                "timeout": "24h",
                "depends_on": ["extract"],
            },
            {"name": "kg", "type": "KGStage", "uses": "postgres", "depends_on": ["wait", "embed"]},
        ],
    }
)


def test_the_terminal_shows_branches_joins_gates_and_what_each_stage_uses() -> None:
    expected = """\
        branched 2.1  ·  files
        Extraction beside embedding.

        ●    ingest   IngestStage   -         polite-api
        │
        ●    parse    ParseStage    auto      default
        ├─╮
        ● │  chunk    ChunkStage    sections  default
        │ │
        │ ○  extract  ExtractStage  llm       gpu-bound   when kind = article
        │ │
        ● │  embed    EmbedStage    -         default
        │ │
        │ ◆  wait     waits for pdf_ir_ready = true, at most 24 h, then fail
        │ │
        ├─╯
        ◉    kg       KGStage       postgres  default     joins wait, embed

        ● stage   ○ may be passed over   ◆ gate   ◉ join"""
    assert as_text(BRANCHED) == dedent(expected)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    lines = as_text(BRANCHED, width).splitlines()

    assert max(map(len, lines)) <= width
    assert all(any(name in line for line in lines) for name in BRANCHED.by_name)


def test_where_it_is_narrow_the_type_gives_way() -> None:
    assert "ChunkStage" not in as_text(BRANCHED, 60)
    assert "sections" in as_text(BRANCHED, 60)


def test_the_svg_holds_every_stage_and_edge() -> None:
    root = ET.fromstring(as_svg(BRANCHED))
    groups = [group for group in root.iter(f"{SVG}g") if "data-stage" in group.attrib]

    assert {group.attrib["data-stage"] for group in groups} == set(BRANCHED.by_name)
    assert len(list(root.iter(f"{SVG}path"))) == sum(map(len, BRANCHED.predecessors.values()))
    (gate,) = (group for group in groups if group.attrib["data-stage"] == "wait")
    assert [text.text for text in gate.iter(f"{SVG}text")] == [
        "wait",
        "waits for pdf_ir_ready = true",
        "at most 24 h, then fail",
    ]
    assert len(next(iter(gate.iter(f"{SVG}polygon"))).attrib["points"].split()) == 6


def test_text_from_a_topology_is_escaped() -> None:
    evil = '</title><script>alert("1")</script> & \x0b\x00'
    content = BRANCHED.model_dump(mode="json", by_alias=True) | {"description": evil}
    content["stages"][3]["when"] = {"field": '"><script>x</script>', "equals": "]]>&\x01"}
    svg = as_svg(Topology.model_validate(content))

    root = ET.fromstring(svg)
    assert list(root.iter(f"{SVG}script")) == []
    assert "<script" not in svg
    assert "\x00" not in as_text(Topology.model_validate(content))


def test_a_drawing_is_the_same_every_time() -> None:
    assert as_svg(BRANCHED) == as_svg(Topology.from_canonical_json(BRANCHED.canonical_json))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.5, "1.5 s"), (90, "90 s"), (1_800, "30 min"), (86_400, "24 h"), (172_800, "48 h"), (604_800, "7 d")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@st.composite
def graphs(draw: st.DrawFn) -> Topology:
    size = draw(st.integers(1, 12))
    stages: list[dict[str, object]] = [{"name": "a", "type": "IngestStage"}]
    for number in range(1, size):
        before = draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3))
        depends_on = ["abcdefghijkl"[each] for each in sorted(before)]
        stages.append({"name": "abcdefghijkl"[number], "type": "ParseStage", "depends_on": depends_on})
    return Topology.model_validate({"version": "1.0", "name": "t", "stages": draw(st.permutations(stages))})


def sized(topology: Topology) -> Layout:
    return lay_out(topology, {name: (80.0 + 30 * (index % 3), 40.0) for index, name in enumerate(topology.by_name)})


@settings(deadline=None)
@given(graphs())
def test_boxes_never_overlap_and_edges_go_down_around_them(topology: Topology) -> None:
    layout = sized(topology)

    assert set(layout.boxes) == set(topology.by_name)
    for one, two in combinations(layout.boxes.values(), 2):
        is_beside = abs(one.x - two.x) >= (one.width + two.width) / 2
        assert is_beside or abs(one.y - two.y) >= (one.height + two.height) / 2
    for (start, end), points in layout.routes.items():
        assert points[0] == (layout.boxes[start].x, layout.boxes[start].y + 20)
        assert points[-1] == (layout.boxes[end].x, layout.boxes[end].y - 20)
        for (x1, y1), (x2, y2) in pairwise(points):
            assert y2 >= y1, "an edge goes up"
            assert x1 == pytest.approx(x2, abs=1) or y1 == y2, "an edge is slanted"
            for name, box in layout.boxes.items():
                is_inside = (
                    min(x1, x2) < box.x + box.width / 2 - 1
                    and max(x1, x2) > box.x - box.width / 2 + 1
                    and y1 < box.y + box.height / 2 - 1
                    and y2 > box.y - box.height / 2 + 1
                )
                assert not is_inside, f"the edge {start} -> {end} runs through {name}"


@settings(deadline=None)
@given(graphs())
def test_every_graph_can_be_drawn(topology: Topology) -> None:
    ET.fromstring(as_svg(topology))
    text = as_text(topology).splitlines()
    order = in_order(topology)

    assert [line.split()[-4] for line in text if "ParseStage" in line and "joins" not in line] == [
        name for name in order if name != "a" and name not in topology.joins
    ]
    for name, before in topology.predecessors.items():
        assert all(order.index(each) < order.index(name) for each in before)
