"""What is shipped: every topology in order, as the design names it, with its dated copy."""

from pathlib import Path

import pytest

from medkg.contracts.topology import Backoff, Breaker, GateDefinition, Topology
from medkg.contracts.topology_drawing import as_svg, as_text
from medkg.runtime.topologies import TopologyLoader

FOLDER = Path(__file__).resolve().parents[3] / "topologies"
NAMES = ("auto", "clinical-trials", "pdf-local", "pdf-two-phase", "pmc-fulltext", "side-by-side")
TEXT = ["ingest", "parse", "ir_validation", "chunk", "embed", "index", "extract", "kg"]
LOCAL = ["ingest", "download_pdf", "parse", "ir_validation", "chunk", "embed", "index", "extract", "kg"]
PDF = ["ingest", "download_pdf", "pdf_gate", "chunk", "embed", "index", "extract", "kg"]


@pytest.fixture(scope="module")
def loader() -> TopologyLoader:
    return TopologyLoader(FOLDER)


def names_of(topology: Topology) -> list[str]:
    return [stage.name for stage in topology.stages]


def test_all_are_in_order(loader: TopologyLoader) -> None:
    assert loader.problems() == ()
    assert loader.names() == NAMES


@pytest.mark.parametrize(
    ("name", "stages"),
    [("auto", TEXT), ("clinical-trials", TEXT), ("pdf-local", LOCAL), ("pdf-two-phase", PDF), ("pmc-fulltext", PDF)],
)
def test_the_stages_are_those_of_the_design_one_after_the_other(
    loader: TopologyLoader, name: str, stages: list[str]
) -> None:
    topology = loader.get(name)
    assert names_of(topology) == stages
    assert [topology.successors[stage] for stage in stages] == [(after,) for after in stages[1:]] + [()]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("files", "auto"),
        ("clinicaltrials", "clinical-trials"),
        ("pmc-fulltext", "pmc-fulltext"),
        ("unpaywall", "pdf-two-phase"),
        ("core", "pdf-two-phase"),
    ],
)
def test_every_source_has_its_topology(loader: TopologyLoader, source: str, name: str) -> None:
    assert loader.resolve(source).name == name


def test_the_pdf_topologies_wait_for_the_parsed_document(loader: TopologyLoader) -> None:
    for name in ("pdf-two-phase", "pmc-fulltext"):
        gate = loader.get(name).by_name["pdf_gate"]
        assert isinstance(gate, GateDefinition)
        assert (gate.condition.ledger_field, gate.condition.equals, gate.resume_stage) == (
            "pdf_ir_ready",
            True,
            "chunk",
        )
    assert loader.get("pdf-two-phase").applicable_sources == ("pmc-fulltext", "unpaywall", "core")


def test_the_policies_are_those_of_the_design(loader: TopologyLoader) -> None:
    policies = loader.policies().policies

    assert set(policies) == {"default", "gpu-bound", "polite-api"}
    default, gpu, polite = policies["default"], policies["gpu-bound"], policies["polite-api"]
    assert (default.attempts, default.backoff, default.timeout_seconds) == (3, Backoff.EXPONENTIAL, 30)
    assert default.jitter_seconds > 0
    assert (gpu.attempts, gpu.backoff, gpu.timeout_seconds) == (1, Backoff.NONE, 60)
    assert gpu.breaker == Breaker(failures=5, reset_seconds=60)
    assert (polite.attempts, polite.backoff, polite.timeout_seconds) == (10, Backoff.LINEAR, 10)
    assert polite.rate_per_second == 5


def test_every_file_has_its_dated_copy(loader: TopologyLoader) -> None:
    """So that a changed topology cannot keep the version of the one before."""
    dated = sorted((FOLDER / "versions").iterdir())
    assert dated
    for name in NAMES:
        current = loader.get(name)
        older = [(folder / f"{name}.yaml") for folder in dated if (folder / f"{name}.yaml").is_file()]
        assert older, f"{name} has no copy below versions/"
        twins = [path for path in older if f'version: "{current.version}"' in path.read_text(encoding="utf-8")]
        assert twins, f"{name} {current.version} has no copy below versions/"
        for path in twins:
            assert path.read_bytes() == (FOLDER / f"{name}.yaml").read_bytes(), f"raise the version of {name}"


def test_every_topology_can_be_drawn(loader: TopologyLoader) -> None:
    for name in NAMES:
        topology = loader.get(name)
        assert all(stage in as_text(topology) and stage in as_svg(topology) for stage in topology.by_name)
