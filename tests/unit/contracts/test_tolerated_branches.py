"""Joins that tolerate the failure of a branch: where a document goes on, and which topologies may say so."""

from typing import Any

import pytest

from medkg.contracts import topics
from medkg.contracts.messages import Artefact
from medkg.contracts.routing import Step, artefacts_for, route_after_failure
from medkg.contracts.topology import Policies, Topology
from medkg.contracts.topology_graph import check_graph

STAGES: list[dict[str, Any]] = [
    {"name": "ingest", "type": "IngestStage"},
    {"name": "parse", "type": "ParseStage", "depends_on": ["ingest"]},
    {"name": "chunk", "type": "ChunkStage", "depends_on": ["parse"]},
    {"name": "embed", "type": "EmbedStage", "depends_on": ["chunk"]},
    {"name": "extract", "type": "ExtractStage", "depends_on": ["parse"]},
    {"name": "kg", "type": "KGStage", "depends_on": ["embed", "extract"], "tolerates": ["embed"]},
]
POLICIES = Policies.model_validate({"policies": {"default": {}}})


def with_kg(**fields: Any) -> dict[str, Any]:
    stages = [stage | (fields if stage["name"] == "kg" else {}) for stage in STAGES]
    return {"version": "1.0", "name": "t", "stages": stages}


def topology(**fields: Any) -> Topology:
    return Topology.model_validate(with_kg(**fields))


@pytest.mark.parametrize("failed", ["chunk", "embed"])
def test_a_tolerated_branch_that_fails_anywhere_arrives_at_its_join_as_failed(failed: str) -> None:
    route = route_after_failure(topology(), failed)
    assert route is not None
    assert route.steps == (Step("kg", topics.GATE, "embed"),)
    assert route.finished_leaves == ()


@pytest.mark.parametrize("failed", ["ingest", "parse", "extract", "kg"])
def test_what_every_branch_needs_or_the_join_does_not_tolerate_fails_the_document(failed: str) -> None:
    assert route_after_failure(topology(), failed) is None


def test_without_the_setting_nothing_is_tolerated() -> None:
    assert route_after_failure(topology(tolerates=[]), "embed") is None


def test_a_branch_that_also_has_an_end_of_its_own_is_not_tolerated() -> None:
    content = with_kg()
    content["stages"] = [*content["stages"], {"name": "index", "type": "IndexStage", "depends_on": ["embed"]}]
    assert route_after_failure(Topology.model_validate(content), "chunk") is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tolerates": ["extract"]}, "reads extraction, so a branch that brings it has to succeed"),
        ({"tolerates": ["extract", "embed"]}, "reads extraction"),
        ({"tolerates": ["parse"]}, "tolerates 'parse', which it does not depend on"),
        ({"tolerates": ["extract"], "depends_on": ["extract"]}, "joins no branches"),
    ],
)
def test_a_tolerance_that_makes_no_sense_is_a_fault_of_the_topology(fields: dict[str, Any], says: str) -> None:
    findings = [finding.message for finding in check_graph(with_kg(**fields), POLICIES)]
    assert any(says in message for message in findings), findings


def test_a_tolerance_that_makes_sense_is_no_fault() -> None:
    assert check_graph(with_kg(), POLICIES) == []


def test_a_gate_for_a_parsed_file_is_given_the_file_and_what_follows_is_not() -> None:
    gated = Topology.model_validate(
        {
            "version": "1.0",
            "name": "t",
            "stages": [
                {"name": "ingest", "type": "IngestStage"},
                {"name": "get", "type": "DownloadStage", "depends_on": ["ingest"]},
                {
                    "name": "gate",
                    "type": "Gate",
                    "condition": {"ledger_field": "pdf_ir_ready"},
                    "resume_stage": "chunk",
                },
                {"name": "chunk", "type": "ChunkStage", "depends_on": ["gate"]},
            ],
        }
    )
    file = Artefact("file", "0" * 64, 3, key="artefacts/x", inline=b"{}")  # type: ignore[arg-type]  # bytes as Raw
    assert artefacts_for(gated, "gate", {"file": file}) == {"file": file}
    assert artefacts_for(gated, "chunk", {"file": file}) == {}
