"""The example of a stage in a package of its own works as its guide says."""

import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, Document, Extraction, Provenance, Section
from medkg.contracts.errors import PipelineConfigError
from medkg.contracts.implementation import ENTRY_POINTS, Host
from medkg.contracts.stages import StageType, encode_artefact
from medkg.contracts.topology import StageDefinition
from medkg.runtime import registry
from medkg.runtime.blobs import open_blobs
from medkg.runtime.registry import OpenStages, installed
from medkg.runtime.topologies import TopologyLoader

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "custom-stage"
NOTE = "Aspirin 100 mg every morning; metformin 1.5 g at night. Ibuprofen 400 mg once."


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as if it were installed: its source can be imported, its entry points are found."""
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    declared = [EntryPoint(name, at, ENTRY_POINTS) for name, at in project["entry-points"][ENTRY_POINTS].items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: declared)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, open_blobs("memory:"))


def definition(**with_: Any) -> StageDefinition:
    return StageDefinition(name="extract", type=StageType.EXTRACT, uses="doses", with_=with_)


def document() -> Document:
    block = Block("s0.0", NOTE, Provenance("note.txt", "char=0,78"))
    return Document("d1", "files", "note.txt", "text", "A note", (Section("s0", ("Plan",), (block,)),))


@pytest.mark.usefixtures("package")
async def test_the_example_is_found_opened_and_run_as_a_worker_does(host: Host) -> None:
    async with OpenStages(installed(StageType.EXTRACT), host) as stages:
        opened = await stages.get(definition(drugs=["aspirin", "metformin"]))
        ctx = StageContext("default", "d1", "job")
        found = opened.stage.execute(ctx, document())
        assert isinstance(found, Extraction)
        doses = {(claim.object_entity, claim.qualifiers["dose"]) for claim in found.claims}
        assert doses == {("drug:aspirin", "100 mg"), ("drug:metformin", "1.5 g")}
        assert {entity.entity_id for entity in found.entities} == {"doc:d1", "drug:aspirin", "drug:metformin"}
        assert encode_artefact(found) == encode_artefact(opened.stage.execute(ctx, document()))


@pytest.mark.usefixtures("package")
async def test_every_claim_of_the_example_leads_back_to_its_words(host: Host) -> None:
    async with OpenStages(installed(StageType.EXTRACT), host) as stages:
        opened = await stages.get(definition(drugs=["aspirin", "metformin"]))
        found = opened.stage.execute(StageContext("default", "d1", "job"), document())
        for claim in found.claims:
            (mention,) = claim.evidence
            assert found.passages[mention.span.block_id].text[mention.span.start : mention.span.end] == mention.text


@pytest.mark.usefixtures("package")
async def test_the_example_refuses_settings_it_does_not_know(host: Host) -> None:
    async with OpenStages(installed(StageType.EXTRACT), host) as stages:
        with pytest.raises(PipelineConfigError, match=r"with\.drug: Extra inputs"):
            await stages.get(definition(drug=["aspirin"], drugs=["aspirin"]))


def test_the_topology_of_the_example_is_valid(tmp_path: Path) -> None:
    shipped = EXAMPLE.parents[1] / "topologies"
    for file in (shipped / "resilience.yaml", EXAMPLE / "doses.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    loader = TopologyLoader(tmp_path)
    assert loader.problems() == ()
    assert loader.get("doses").by_name["extract"].type is StageType.EXTRACT


@pytest.mark.usefixtures("package")
def test_the_example_builds_on_the_contracts_alone() -> None:
    module = import_module("notes_extract")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["medkg-contracts"]
    assert "medkg.runtime" not in Path(str(module.__file__)).read_text()
