"""The topology model: digests, neighbours, predicates, and what a pinned topology keeps."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medkg.contracts.topology import Policy, StageDefinition, Topology, When, read_duration

STAGES = [
    {"name": "ingest", "type": "IngestStage"},
    {"name": "parse", "type": "ParseStage", "depends_on": ["ingest"]},
    {"name": "gate", "type": "Gate", "condition": {"ledger_field": "pdf_ir_ready"}, "resume_stage": "chunk"},
    {"name": "chunk", "type": "ChunkStage", "depends_on": ["gate"]},
    {"name": "extract", "type": "ExtractStage", "depends_on": ["gate"]},
    {"name": "kg", "type": "KGStage", "depends_on": ["extract", "chunk"]},
]


def topology(**changes: object) -> Topology:
    return Topology.model_validate({"version": "1.0", "name": "t", "stages": STAGES} | changes)


def test_the_digest_is_the_hash_of_the_canonical_json() -> None:
    found = topology()

    assert found.digest == hashlib.sha256(found.canonical_json.encode()).hexdigest()
    assert json.loads(found.canonical_json)["stages"][2]["timeout"] == 86_400  # defaults are written out
    assert found.ref == (found.ref.__class__)("t", "1.0", found.digest)


def test_a_topology_survives_its_canonical_json() -> None:
    found = topology()
    again = Topology.from_canonical_json(found.canonical_json)

    assert again == found
    assert again.digest == found.digest


def test_a_pinned_topology_of_a_newer_release_is_read_and_keeps_its_digest() -> None:
    content = json.loads(topology().canonical_json)
    content["stages"][1]["colour"] = "red"  # a field that this release does not know
    text = json.dumps(content, sort_keys=True)
    found = Topology.from_canonical_json(text)

    assert found.stages == topology().stages
    assert found.digest == hashlib.sha256(text.encode()).hexdigest()


def test_an_unknown_field_is_refused_at_the_door() -> None:
    with pytest.raises(ValidationError):
        topology(colour="red")


def test_neighbours_joins_entry_and_leaves() -> None:
    found = topology()

    assert found.predecessors["gate"] == ("parse",)  # a gate without depends_on follows the stage above
    assert found.successors["gate"] == ("chunk", "extract")
    assert found.joins == {"kg"}
    assert found.entry.name == "ingest"
    assert found.leaves == ("kg",)
    assert found.kinds_needed["gate"] == {"file", "document", "extraction"}
    assert found.kinds_needed["kg"] == {"extraction"}


@pytest.mark.parametrize(
    ("predicate", "metadata", "holds"),
    [
        ({"equals": "x"}, {"f": "x"}, True),
        ({"equals": "x"}, {}, False),
        ({"equals": 1}, {"f": True}, False),  # true is not 1
        ({"equals": True}, {"f": 1}, False),
        ({"equals": False}, {"f": 0}, False),
        ({"equals": 1}, {"f": 1.0}, True),
        ({"not_equals": "x"}, {}, True),
        ({"not_equals": "x"}, {"f": "x"}, False),
        ({"not_equals": 1}, {"f": True}, True),
        ({"one_of": ["x", 1]}, {"f": 1}, True),
        ({"one_of": ["x", 1]}, {"f": True}, False),
        ({"at_least": 3}, {"f": 3}, True),
        ({"at_least": 3}, {"f": 2.9}, False),
        ({"at_least": 0}, {"f": True}, False),
        ({"at_least": 3}, {"f": "4"}, False),
        ({"at_most": 3}, {}, False),
        ({"at_least": 2, "at_most": 3}, {"f": 4}, False),
        ({"exists": True}, {"f": ""}, True),
        ({"exists": True}, {"f": None}, False),
        ({"exists": False}, {}, True),
    ],
)
def test_a_predicate_compares_with_the_kind_of_the_value(
    predicate: dict[str, object], metadata: dict[str, str | int | float | bool | None], holds: bool
) -> None:
    assert When.model_validate({"field": "f"} | predicate).holds(metadata) is holds


@pytest.mark.parametrize(
    "stage",
    [
        {"name": "A"},
        {"name": "a\n"},
        {"name": "a" * 64},
        {"depends_on": ["b", "b"]},
        {"type": "Gate"},
        {"uses": "../x"},
        {"uses": ""},
        {"when": {"field": "x"}},
        {"checks": {"min_characters": 5, "max_characters": 4}},
        {"with": {"x": float("nan")}, "when": {"field": "x", "at_least": float("nan")}},
    ],
)
def test_a_stage_out_of_bounds_is_refused(stage: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        topology(stages=[{"name": "a", "type": "IngestStage"} | stage])


def test_the_default_policy_is_that_of_the_design() -> None:
    policy = Policy()

    assert (policy.attempts, policy.backoff, policy.timeout_seconds) == (3, "exponential", 30)
    assert policy.jitter_seconds > 0
    with pytest.raises(ValidationError, match="initial_seconds is greater"):
        Policy(initial_seconds=10, max_seconds=1)


@given(st.integers(0, 10**6), st.sampled_from([("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: tuple[str, int]) -> None:
    assert read_duration(f"{number}{unit[0]}") == number * unit[1]


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
def test_what_is_not_text_is_no_business_of_the_duration(value: object) -> None:
    assert read_duration(value) is value


def test_stages_with_settings_differ_in_their_digest() -> None:
    one = StageDefinition.model_validate({"name": "a", "type": "ChunkStage", "with": {"n": 1}})
    two = StageDefinition.model_validate({"name": "a", "type": "ChunkStage", "with": {"n": 1.5}})

    assert topology(stages=[one]).digest != topology(stages=[two]).digest
