"""Topologies and policies in YAML: what is read, and that every fault is named with its line and column."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.errors import PipelineConfigError, SourceFault
from medkg.contracts.topology import Backoff, Breaker, OnTimeout, Policies, Policy
from medkg.contracts.topology_source import read_policies, read_topology

POLICIES = Policies(policies={"default": Policy(), "gpu-bound": Policy(attempts=1)})

GOOD = """\
version: "1.0"
name: auto
applicable_sources: [files]
stages:
  - name: ingest
    type: IngestStage
  - name: parse
    type: ParseStage
    depends_on: [ingest]
  - name: chunk
    type: ChunkStage
    uses: sections
    with: {max_tokens: 200}
    depends_on: [parse]
"""


def faults_of(text: str) -> list[SourceFault]:
    with pytest.raises(PipelineConfigError) as caught:
        read_topology(text, "auto.yaml", POLICIES)
    assert caught.value.message.splitlines()[0] == str(caught.value.faults[0])
    return list(caught.value.faults)


def fault_of(text: str) -> str:
    found = faults_of(text)
    assert len(found) == 1, [str(fault) for fault in found]
    return str(found[0])


def stages(lines: str, head: str = 'version: "1.0"\nname: auto\n') -> str:
    """A topology of the given stages; the first of them is on line 4 of the file."""
    return f"{head}stages:\n{dedent(lines).strip(chr(10))}\n"


def test_a_good_topology_is_read_whole() -> None:
    topology = read_topology(GOOD, "auto.yaml", POLICIES)

    assert (topology.name, topology.version, topology.applicable_sources) == ("auto", "1.0", ("files",))
    assert [stage.name for stage in topology.stages] == ["ingest", "parse", "chunk"]
    assert topology.by_name["chunk"].model_dump()["with_"] == {"max_tokens": 200}
    assert topology.entry.name == "ingest"
    assert topology.leaves == ("chunk",)


def test_white_space_comments_and_key_order_do_not_change_the_digest() -> None:
    commented = "# a comment\n\n" + GOOD.replace('version: "1.0"\nname: auto', "name:   auto\nversion: '1.0'")
    digest = read_topology(GOOD, "a", POLICIES).digest

    assert read_topology(commented, "b", POLICIES).digest == digest
    assert read_topology(GOOD.replace("200", "201"), "c", POLICIES).digest != digest


def test_policies_are_read_with_their_bounds() -> None:
    policies = read_policies(
        "policies:\n  gpu:\n    attempts: 1\n    backoff: none\n    breaker: {failures: 5, reset_seconds: 60}\n",
        "r.yaml",
    )

    assert policies.policies["gpu"].backoff is Backoff.NONE
    assert policies.policies["gpu"].breaker == Breaker(failures=5, reset_seconds=60)


@pytest.mark.parametrize(
    ("field", "least", "most", "under", "over"),
    [
        ("attempts", "1", "10", "0", "11"),
        ("initial_seconds", "0.1", "10", "0.09", "10.1"),
        ("max_seconds", "1", "300", "0.9", "301"),
        ("jitter_seconds", "0", "5", "-0.1", "5.1"),
        ("timeout_seconds", "1", "600", "0.5", "601"),
        ("rate_per_second", "0.1", "100", "0.05", "101"),
        ("breaker.failures", "3", "10", "2", "11"),
        ("breaker.reset_seconds", "30", "600", "29", "601"),
    ],
)
def test_a_policy_out_of_bounds_is_a_fault_at_its_value(
    field: str, least: str, most: str, under: str, over: str
) -> None:
    def written(value: str) -> str:
        breaker = {"failures": "3", "reset_seconds": "30"}
        if field.startswith("breaker."):
            breaker[field.removeprefix("breaker.")] = value
            fields = f"breaker: {{failures: {breaker['failures']}, reset_seconds: {breaker['reset_seconds']}}}"
        else:
            fields = f"{field}: {value}" + (", initial_seconds: 0.1" if field == "max_seconds" else "")
        return f"policies:\n  p: {{{fields}}}\n"

    for value in (least, most):
        assert read_policies(written(value), "r.yaml").policies["p"]
    for value, words in ((under, "at least"), (over, "at most")):
        with pytest.raises(PipelineConfigError) as caught:
            read_policies(written(value), "r.yaml")
        (fault,) = caught.value.faults
        assert (fault.file, fault.line) == ("r.yaml", 2)
        assert written(value).splitlines()[1][fault.column - 1 :].startswith(value)
        assert fault.message.startswith(f"policy 'p': {field}: must be {words}")


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 90), ("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800)]
)
def test_a_timeout_may_have_a_unit(written: str, seconds: float) -> None:
    text = gate(f"condition: {{ledger_field: pdf_ir_ready}}, resume_stage: chunk, timeout: {written}, on_timeout: skip")
    found = read_topology(text, "g.yaml", POLICIES).by_name["wait"]

    assert found.model_dump()["timeout_seconds"] == seconds
    assert found.model_dump()["on_timeout"] is OnTimeout.SKIP


def gate(fields: str) -> str:
    return stages(
        f"""
          - {{name: ingest, type: IngestStage}}
          - {{name: wait, type: Gate, {fields}}}
          - {{name: chunk, type: ChunkStage, depends_on: [wait]}}
        """
    )


FAULTS = {
    "an unknown stage": (
        stages(
            """
            - {name: ingest, type: IngestStage}
            - {name: parse, type: ParseStage, depends_on: [ingest]}
            - {name: chunk, type: ChunkStage, depends_on: [parse]}
            - name: embed
              type: EmbedStage
              depends_on: [chunks]
            """
        ),
        "auto.yaml:9:16: stage 'embed' depends on 'chunks', which does not exist; did you mean 'chunk'?",
    ),
    "an unknown policy": (
        stages("- {name: ingest, type: IngestStage, policy: gpu-bond}"),
        "auto.yaml:4:45: stage 'ingest' has the policy 'gpu-bond', which does not exist; did you mean 'gpu-bound'?",
    ),
    "a cycle": (
        stages(
            """
            - {name: ingest, type: IngestStage}
            - {name: a, type: ParseStage, depends_on: [ingest, c]}
            - {name: b, type: ParseStage, depends_on: [a]}
            - {name: c, type: ParseStage, depends_on: [b]}
            """
        ),
        "auto.yaml:5:52: the stages go round in a cycle: a -> b -> c -> a",
    ),
    "a stage that depends on itself": (
        stages("- {name: ingest, type: IngestStage}\n- {name: a, type: ParseStage, depends_on: [ingest, a]}"),
        "auto.yaml:5:52: the stages go round in a cycle: a -> a",
    ),
    "an unreachable stage": (
        stages(
            """
            - {name: ingest, type: IngestStage}
            - {name: parse, type: ParseStage}
            - {name: chunk, type: ChunkStage, depends_on: [parse]}
            """
        ),
        "auto.yaml:5:3: stage 'parse' cannot be reached: it depends on nothing (nor can 'chunk' after it); "
        "add depends_on: [ingest]",
    ),
    "no beginning": (
        stages("- {name: parse, type: ParseStage}"),
        "auto.yaml:4:1: no stage is of type IngestStage; a pipeline begins with one",
    ),
    "two beginnings": (
        stages("- {name: a, type: IngestStage}\n- {name: b, type: IngestStage}"),
        "auto.yaml:5:3: the pipeline begins twice: with 'a' and with 'b'; one IngestStage is the beginning of all",
    ),
    "a beginning in the middle": (
        stages("- {name: a, type: IngestStage}\n- {name: b, type: IngestStage, depends_on: [a]}"),
        "auto.yaml:5:44: stage 'b' reads from a source, so it cannot come after 'a'; "
        "an IngestStage is the beginning: it depends on nothing",
    ),
    "a repeated name": (
        stages("- {name: a, type: IngestStage}\n- {name: a, type: ParseStage, depends_on: [a]}"),
        "auto.yaml:5:10: two stages are named 'a'; the first is on line 4",
    ),
    "a repeated predecessor": (
        stages("- {name: a, type: IngestStage}\n- {name: b, type: ParseStage, depends_on: [a, a]}"),
        "auto.yaml:5:47: stage 'b': 'a' stands here twice",
    ),
    "a missing input": (
        stages("- {name: a, type: IngestStage}\n- {name: b, type: EmbedStage, depends_on: [a]}"),
        "auto.yaml:5:19: stage 'b' (EmbedStage) reads chunks, which no stage before it makes; "
        "let it come after one of type ChunkStage",
    ),
    "an input that is only sometimes there": (
        stages(
            """
            - {name: a, type: IngestStage}
            - {name: b, type: ParseStage, depends_on: [a], when: {field: kind, equals: article}}
            - {name: c, type: ChunkStage, depends_on: [b]}
            """
        ),
        "auto.yaml:5:54: stage 'c' always reads document, but 'b', which makes it, may be passed over; "
        "give 'c' a 'when' too",
    ),
    "an input that is there twice": (
        stages(
            """
            - {name: a, type: IngestStage}
            - {name: b, type: ParseStage, depends_on: [a]}
            - {name: c, type: ParseStage, depends_on: [a]}
            - {name: d, type: ChunkStage, depends_on: [b, c]}
            """
        ),
        "auto.yaml:7:43: stage 'd' reads document, which both 'b' and 'c' make on the way to it; "
        "let one come after the other, or give each a 'when'",
    ),
    "checks where nothing is checked": (
        stages("- {name: a, type: IngestStage, checks: {min_characters: 1}}"),
        "auto.yaml:4:40: stage 'a' is of type IngestStage, which makes no checks; only a ValidateStage does",
    ),
    "a beginning that may be passed over": (
        stages("- {name: a, type: IngestStage, when: {field: x, exists: true}}"),
        "auto.yaml:4:38: stage 'a' cannot be passed over: there is no document before an IngestStage",
    ),
    "a gate on an unknown field": (
        gate("condition: {ledger_field: pdf_ready}, resume_stage: chunk"),
        "auto.yaml:5:54: gate 'wait' waits for 'pdf_ready', which the ledger does not have; "
        "did you mean 'pdf_ir_ready'?",
    ),
    "a gate on a value of another kind": (
        gate('condition: {ledger_field: pdf_ir_ready, equals: "yes"}, resume_stage: chunk'),
        "auto.yaml:5:76: gate 'wait' can never open: pdf_ir_ready is true or false, never 'yes'",
    ),
    "a gate that resumes elsewhere": (
        gate("condition: {ledger_field: pdf_ir_ready}, resume_stage: ingest"),
        "auto.yaml:5:83: gate 'wait' resumes at 'ingest', which does not come directly after it; after it comes chunk",
    ),
    "a gate that resumes nowhere": (
        gate("condition: {ledger_field: pdf_ir_ready}, resume_stage: chunks"),
        "auto.yaml:5:83: gate 'wait' resumes at 'chunks', which does not exist; did you mean 'chunk'?",
    ),
    "a gate that lets go without the input": (
        gate("condition: {ledger_field: pdf_ir_ready}, resume_stage: chunk, on_timeout: release"),
        "auto.yaml:5:102: gate 'wait' lets documents go on without the document that 'chunk' reads; "
        "let on_timeout be fail or skip",
    ),
    "a gate that follows several stages": (
        stages(
            """
            - {name: a, type: IngestStage}
            - {name: b, type: ParseStage, depends_on: [a]}
            - {name: c, type: Gate, condition: {ledger_field: pdf_downloaded}, resume_stage: d, depends_on: [a, b]}
            - {name: d, type: ChunkStage, depends_on: [c]}
            """
        ),
        "auto.yaml:6:97: gate 'c' follows 2 stages, but a gate follows one; let a stage join the branches before it",
    ),
    "a timeout in an unknown unit": (
        gate("condition: {ledger_field: pdf_ir_ready}, resume_stage: chunk, timeout: 3w"),
        "auto.yaml:5:99: stage 'wait': timeout: expected seconds, or a number with a unit such as 90s, 30m, 24h or 7d",
    ),
    "a timeout beyond a month": (
        gate("condition: {ledger_field: pdf_ir_ready}, resume_stage: chunk, timeout: 31d"),
        "auto.yaml:5:99: stage 'wait': timeout: must be at most 2592000, found \"31d\"",
    ),
    "an unknown field": (
        stages("- {name: a, type: IngestStage, polcy: default}"),
        "auto.yaml:4:32: stage 'a': unknown field 'polcy'; did you mean 'policy'?",
    ),
    "an unknown field at the top": (
        "nmae: x\n" + GOOD,
        "auto.yaml:1:1: unknown field 'nmae'; did you mean 'name'?",
    ),
    "an unknown field of a gate's condition": (
        gate("condition: {ledger_field: pdf_ir_ready, equal: true}, resume_stage: chunk"),
        "auto.yaml:5:68: stage 'wait': unknown field 'equal'; did you mean 'equals'?",
    ),
    "an unknown type": (
        stages("- {name: a, type: IngestStag}"),
        "auto.yaml:4:3: stage 'a': unknown type 'IngestStag'; did you mean 'IngestStage'?",
    ),
    "no type": (
        stages("- {name: a}"),
        "auto.yaml:4:3: stage 'a': 'type' is missing; it is one of IngestStage, DownloadStage, ParseStage, "
        "ValidateStage, ChunkStage, EmbedStage, IndexStage, ExtractStage, KGStage, Gate",
    ),
    "a missing field": (
        GOOD.replace("name: auto\n", ""),
        "auto.yaml:1:1: 'name' is missing",
    ),
    "a version without quotes": (
        GOOD.replace('"1.0"', "1.10"),
        'auto.yaml:1:10: version: expected text, found 1.10; put it in quotes: "1.10"',
    ),
    "a version of other digits": (
        GOOD.replace('"1.0"', '"\u0661.\u0660"'),
        'auto.yaml:1:10: version: "\u0661.\u0660" does not match ^[0-9]{1,9}\\.[0-9]{1,9}$',
    ),
    "a name with capitals": (
        GOOD.replace("name: auto", "name: Auto"),
        'auto.yaml:2:7: name: "Auto" does not match ^[a-z-]+$',
    ),
    "a list where a value belongs": (
        gate("condition: {ledger_field: pdf_ir_ready, equals: [true]}, resume_stage: chunk"),
        "auto.yaml:5:76: stage 'wait': condition.equals: expected text, a number, true or false, found a list",
    ),
    "a 'when' without a condition": (
        stages("- {name: a, type: IngestStage}\n- {name: b, type: ParseStage, depends_on: [a], when: {field: x}}"),
        "auto.yaml:5:54: stage 'b': when: 'when' has no condition: "
        "give equals, not_equals, one_of, at_least, at_most or exists",
    ),
    "a 'when' that can never hold": (
        stages(
            "- {name: a, type: IngestStage}\n"
            "- {name: b, type: ParseStage, depends_on: [a], when: {field: x, at_least: 2, at_most: 1}}"
        ),
        "auto.yaml:5:54: stage 'b': when: 'when' can never hold: at_least is greater than at_most",
    ),
    "no stages": ("version: '1.0'\nname: auto\nstages: []\n", "auto.yaml:3:9: stages: must have at least 1"),
}


@pytest.mark.parametrize(("text", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_place_and_what_to_do(text: str, expected: str) -> None:
    assert fault_of(text) == expected


@pytest.mark.parametrize(
    ("condition", "fault"),
    [
        ("ledger_field: current_stage, equals: chunk", ""),
        ("ledger_field: current_stage, equals: chnk", "current_stage is never 'chnk'"),
        ("ledger_field: pipeline_name, equals: auto", ""),
        ("ledger_field: pipeline_name, equals: other", "pipeline_name is never 'other'"),
        ('ledger_field: pipeline_version, equals: "1.0"', ""),
        ("ledger_field: pipeline_version, equals: 1.0", "pipeline_version is text, never 1.0"),
        ("ledger_field: retry_count_per_stage.ingest, equals: 2", ""),
        ("ledger_field: retry_count_per_stage.ingest, equals: true", "is a whole number, never true"),
        ("ledger_field: retry_count_per_stage.ingest, equals: -1", "is a whole number, never -1"),
        ("ledger_field: retry_count_per_stage.nothing, equals: 2", "waits for the retries of 'nothing'"),
        ("ledger_field: post_pdf_started, equals: 1", "is true or false, never 1"),
    ],
)
def test_a_gate_that_nothing_can_satisfy_is_a_fault(condition: str, fault: str) -> None:
    text = stages(
        f"""
        - {{name: ingest, type: IngestStage}}
        - {{name: parse, type: ParseStage, depends_on: [ingest]}}
        - {{name: wait, type: Gate, condition: {{{condition}}}, resume_stage: chunk}}
        - {{name: chunk, type: ChunkStage, depends_on: [wait]}}
        """
    )
    if fault:
        assert fault in fault_of(text)
    else:
        assert read_topology(text, "auto.yaml", POLICIES).predecessors["wait"] == ("parse",)


def test_all_faults_of_a_file_are_named_at_once_and_in_its_order() -> None:
    text = stages(
        """
        - {name: ingest, type: IngestStage, policy: nowhere}
        - {name: parse, type: ParseStage, depends_on: [ingst], colour: red}
        - {name: chunk, type: ChunkStag}
        - {name: chunk, type: ChunkStage, depends_on: [parse]}
        """,
        head="version: 1\nname: auto\nname: again\n",
    )
    found = faults_of(text)

    assert [(fault.line, fault.column) for fault in found] == sorted((fault.line, fault.column) for fault in found)
    assert [fault.line for fault in found] == [1, 3, 5, 6, 6, 7, 8]
    words = ["in quotes", "given twice", "policy", "'ingst'", "'colour'", "'ChunkStag'", "named 'chunk'"]
    assert all(word in str(fault) for word, fault in zip(words, found, strict=True))


def test_what_follows_from_a_fault_is_not_named_again() -> None:
    """Everything after an unknown stage would be unreachable and without input: one fault is enough."""
    text = stages(
        """
        - {name: ingest, type: IngestStage}
        - {name: chunk, type: ChunkStage, depends_on: [pars]}
        - {name: embed, type: EmbedStage, depends_on: [chunk]}
        - {name: extract, type: ExtractStage, depends_on: [chunk]}
        """
    )
    assert fault_of(text).startswith("auto.yaml:5:48: stage 'chunk' depends on 'pars', which does not exist")


def test_a_gate_without_depends_on_follows_the_stage_above_and_brings_its_artefact() -> None:
    topology = read_topology(
        gate("condition: {ledger_field: pdf_ir_ready}, resume_stage: chunk, timeout: 24h"), "a.yaml", POLICIES
    )
    assert topology.predecessors["wait"] == ("ingest",)


def test_a_message_lists_a_hundred_faults_and_the_error_holds_all() -> None:
    with pytest.raises(PipelineConfigError) as caught:
        read_topology(GOOD + "".join(f"x{number}: 1\n" for number in range(150)), "auto.yaml", POLICIES)

    assert len(caught.value.faults) == 150
    assert caught.value.message.splitlines()[-1] == "auto.yaml: 50 more faults are not listed"
    assert len(caught.value.message.splitlines()) == 101


@given(st.text(max_size=300))
def test_any_text_is_a_topology_or_faults(text: str) -> None:
    with pytest.raises(PipelineConfigError) as caught:
        read_topology(text, "any.yaml", POLICIES)
    assert caught.value.faults


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text("abc_-<1 ", max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", max_size=4), inner, max_size=4),
    max_leaves=8,
)
_NAMES = st.sampled_from(["a", "b", "c", "d"])
_STAGE = st.fixed_dictionaries(
    {},
    optional={
        "name": _NAMES | _JSON,
        "type": st.sampled_from(["IngestStage", "ParseStage", "ChunkStage", "KGStage", "Gate", "X"]) | _JSON,
        "depends_on": st.lists(_NAMES | _JSON, max_size=3) | _JSON,
        "policy": st.sampled_from(["default", "none"]) | _JSON,
        "when": st.fixed_dictionaries({"field": _NAMES}, optional={"exists": _JSON}) | _JSON,
        "condition": st.fixed_dictionaries({"ledger_field": st.sampled_from(["pdf_ir_ready", "x"]) | _JSON}) | _JSON,
        "resume_stage": _NAMES | _JSON,
        "timeout": _JSON,
    },
)
_HEAD = st.fixed_dictionaries(
    {"stages": st.lists(_STAGE | _JSON, max_size=5) | _JSON}, optional={"name": st.just("a") | _JSON, "version": _JSON}
)


@given(_HEAD)
def test_content_of_any_shape_is_a_topology_or_faults(content: object) -> None:
    import json  # JSON is YAML

    try:
        read_topology(json.dumps(content), "any.yaml", POLICIES)
    except PipelineConfigError as error:
        assert error.faults
        assert all(fault.line == 1 and fault.column >= 1 for fault in error.faults)
