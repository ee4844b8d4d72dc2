"""A study record becomes sections and fields, whatever is missing from it or put in its place."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus.provenance import lost_blocks

from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, BlockKind, Document, RawPayload, SectionKind
from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError, PayloadUnsupportedError
from medkg.contracts.media import CTG_STUDY
from medkg.contracts.stages import encode_artefact
from medkg.parse.ctg import parse_study, results
from medkg.parse.ctg.prose import criteria, pieces
from medkg.parse.ctg.record import Node
from medkg.parse.ctg.terms import mesh_id

CTX = StageContext("t", "doc", "job")

STUDY: dict[str, Any] = {
    "protocolSection": {
        "identificationModule": {
            "nctId": "NCT00000001",
            "briefTitle": "A Study of\n Something",
            "officialTitle": "The Official Title",
            "acronym": "SOS",
        },
        "statusModule": {
            "overallStatus": "ACTIVE_NOT_RECRUITING",
            "startDateStruct": {"date": "2019-05", "type": "ACTUAL"},
            "completionDateStruct": {"date": "2024-01-31", "type": "ESTIMATED"},
        },
        "sponsorCollaboratorsModule": {
            "leadSponsor": {"name": "A University", "class": "OTHER"},
            "collaborators": [{"name": "B Institute", "class": "NIH"}],
        },
        "descriptionModule": {"briefSummary": "First.\n\n* one\n* two\n  goes on\n\nLast, dose \\> 5."},
        "conditionsModule": {"conditions": ["Asthma"], "keywords": ["wheeze"]},
        "designModule": {
            "studyType": "INTERVENTIONAL",
            "phases": ["EARLY_PHASE1", "PHASE2"],
            "enrollmentInfo": {"count": 31, "type": "ACTUAL"},
        },
        "armsInterventionsModule": {
            "armGroups": [{"label": "Arm A", "type": "EXPERIMENTAL", "interventionNames": ["Drug: X"]}],
            "interventions": [
                {
                    "type": "DRUG",
                    "name": "X",
                    "description": "Twice a day.",
                    "armGroupLabels": ["Arm A", "Arm B"],
                    "otherNames": ["Xil", "Y"],
                }
            ],
        },
        "outcomesModule": {
            "primaryOutcomes": [{"measure": "FEV1", "timeFrame": "12 weeks", "description": "In litres."}],
            "secondaryOutcomes": [{"measure": "Quality of life"}],
        },
        "eligibilityModule": {
            "eligibilityCriteria": "Inclusion Criteria:\n\n* Age \\> 18\n* Asthma\n\nExclusion Criteria:\n\n1. Smoker",
            "sex": "ALL",
            "minimumAge": "18 Years",
            "maximumAge": "65 Years",
        },
        "contactsLocationsModule": {
            "centralContacts": [{"name": "Somebody", "email": "a@b.test"}],
            "locations": [{"facility": "Clinic", "city": "Bern", "country": "Switzerland"}],
        },
        "referencesModule": {"references": [{"pmid": "11", "type": "RESULT", "citation": "Doe J. A paper. 2020."}]},
    },
    "derivedSection": {
        "conditionBrowseModule": {
            "meshes": [{"id": "D001249", "term": "Asthma"}],
            "ancestors": [{"id": "D000001982", "term": "Bronchial Diseases"}],
        },
        "interventionBrowseModule": {"meshes": [{"id": "C000072379", "term": "repaglinide"}]},
    },
    "hasResults": True,
}


def parse(record: object) -> Document:
    return parse_study(CTX, payload_of(record))


def payload_of(record: object) -> RawPayload:
    return RawPayload("files", "NCT00000001", CTG_STUDY, text=json.dumps(record))


def fields(document: Document, role: str) -> list[tuple[str, dict[str, str]]]:
    return [(b.text, b.attributes) for b in document.blocks() if b.role == role]


def test_every_fact_of_the_registry_is_a_field_with_its_role() -> None:
    document = parse(STUDY)
    assert {role: fields(document, role) for role in _EXPECTED} == _EXPECTED
    assert {b.kind for b in document.blocks() if b.role} == {BlockKind.FIELD}


_EXPECTED: dict[str, list[tuple[str, dict[str, str]]]] = {
    "condition": [("Asthma", {})],
    "keyword": [("wheeze", {})],
    "intervention": [("X", {"type": "DRUG", "arm_labels": "Arm A; Arm B", "other_names": "Xil; Y"})],
    "arm": [("Arm A", {"type": "EXPERIMENTAL", "interventions": "Drug: X"})],
    "phase": [("Early phase 1", {"value": "EARLY_PHASE1"}), ("Phase 2", {"value": "PHASE2"})],
    "study_type": [("Interventional", {"value": "INTERVENTIONAL"})],
    "lead_sponsor": [("A University", {"class": "OTHER"})],
    "collaborator": [("B Institute", {"class": "NIH"})],
    "primary_outcome": [("FEV1", {"time_frame": "12 weeks"})],
    "secondary_outcome": [("Quality of life", {})],
    "eligibility_criterion": [
        ("Age > 18", {"kind": "inclusion"}),
        ("Asthma", {"kind": "inclusion"}),
        ("Smoker", {"kind": "exclusion"}),
    ],
    "sex": [("All", {"value": "ALL"})],
    "minimum_age": [("18 Years", {})],
    "maximum_age": [("65 Years", {})],
    "enrollment": [("31", {"type": "ACTUAL"})],
    "overall_status": [("Active not recruiting", {"value": "ACTIVE_NOT_RECRUITING"})],
    "start_date": [("2019-05", {"type": "ACTUAL"})],
    "completion_date": [("2024-01-31", {"type": "ESTIMATED"})],
    "location": [("Clinic, Bern, Switzerland", {"country": "Switzerland"})],
    "condition_mesh": [("Asthma", {"mesh_id": "D001249"})],
    "condition_ancestor": [("Bronchial Diseases", {"mesh_id": "D001982"})],
    "intervention_mesh": [("repaglinide", {"mesh_id": "C072379"})],
}


def test_the_document_knows_what_it_is() -> None:
    document = parse(STUDY)
    assert (document.kind, document.title, document.doc_id) == ("trial", "A Study of Something", "doc")
    assert document.identifiers == {"nct": "NCT00000001"}
    assert document.metadata == {
        "conditions": "Asthma",  # registered so and, letter case aside, the same term of MeSH
        "phase": "EARLY_PHASE1/PHASE2",
        "status": "ACTIVE_NOT_RECRUITING",
        "study_type": "INTERVENTIONAL",
        "year": 2019,
        "enrollment": 31,
        "has_results": True,
    }


def test_terms_and_references_stand_apart_and_contacts_are_left_out() -> None:
    document = parse(STUDY)
    kinds = {section.title: section.kind for section in document.sections}
    assert kinds["MeSH terms"] is SectionKind.TERMS
    assert kinds["References"] is SectionKind.REFERENCES
    assert kinds["Brief summary"] is SectionKind.ABSTRACT
    assert "a@b.test" not in encode_artefact(document).decode()


def test_prose_keeps_its_paragraphs_and_items() -> None:
    blocks = next(s for s in parse(STUDY).sections if s.title == "Brief summary").blocks
    assert [(b.kind, b.text) for b in blocks] == [
        (BlockKind.PARAGRAPH, "First."),
        (BlockKind.LIST_ITEM, "one"),
        (BlockKind.LIST_ITEM, "two goes on"),
        (BlockKind.PARAGRAPH, "Last, dose > 5."),
    ]


def test_every_block_leads_back_to_its_value() -> None:
    assert lost_blocks(parse(STUDY), payload_of(STUDY)) == []


def test_a_block_that_leads_elsewhere_is_noticed_by_the_check() -> None:
    changed = json.loads(json.dumps(STUDY))
    changed["protocolSection"]["conditionsModule"]["conditions"] = ["Gout"]
    assert len(lost_blocks(parse(STUDY), payload_of(changed))) == 1


def test_no_section_comes_to_be_without_a_block() -> None:
    minimal = {"protocolSection": {"identificationModule": {"nctId": "NCT00000001"}}}
    document = parse(minimal)
    assert [section.title for section in document.sections] == ["Identification"]
    assert document.title == "NCT00000001"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Inclusion Criteria:\n\n* a\n\nExclusion Criteria:\n\n* b", [("inclusion", "a"), ("exclusion", "b")]),
        ("INCLUSION CRITERIA\n- a\nEXCLUSION CRITERIA\n- b", [("inclusion", "a"), ("exclusion", "b")]),
        ("* Inclusion Criteria:\n* a", [("inclusion", "a")]),
        ("Key Exclusion Criteria:\n\na\n\nb", [("exclusion", "a"), ("exclusion", "b")]),
        ("Exclusion Criteria:Patients with x", [("exclusion", "Patients with x")]),
        ("Inclusion and Exclusion Criteria:\n\n* a", [("", "a")]),
        ("* a\n* b", [("", "a"), ("", "b")]),
        (
            "Inclusion Criteria:\n\n* no reason for exclusion was found.",
            [("inclusion", "no reason for exclusion was found.")],
        ),
        ("Exclusion Criteria:\n\n1. E. coli\n2. x\n   y\n\n(a) z", [("exclusion", t) for t in ("E. coli", "x y", "z")]),
        ("Inclusion Criteria:", [("inclusion", "Inclusion Criteria:")]),
        ("", []),
    ],
)
def test_eligibility_criteria_fall_into_their_halves(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(c.kind, c.text) for c in criteria(text)] == expected


def test_a_capital_with_a_stop_is_no_marker_of_a_list() -> None:
    assert [p.text for p in pieces("E. coli infection\n\n2.5 mg a day\n\n-5 degrees")] == [
        "E. coli infection",
        "2.5 mg a day",
        "-5 degrees",
    ]


_LINES = st.lists(
    st.sampled_from(
        [
            "* item W",
            "W",
            "",
            "Inclusion Criteria:",
            "W exclusion criteria",
            "Exclusion criteria: W",
            "1. W",
            " W (a) W",
        ]
    ),
    max_size=8,
)


@given(_LINES)
def test_no_word_of_a_long_text_is_lost(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert " ".join(p.text for p in pieces(text)).count("W") == text.count("W")
    headings = {c.heading for c in criteria(text)}
    kept = " ".join((*headings, *(c.text for c in criteria(text))))
    assert kept.count("W") >= len({line for line in lines if "W" in line})


@pytest.mark.parametrize(
    ("given_id", "expected"),
    [
        ("D000003550", "D003550"),
        ("D003550", "D003550"),
        ("D000086382", "D000086382"),
        ("C000072379", "C072379"),
        ("C000598741", "C000598741"),
        ("rubbish", "rubbish"),
    ],
)
def test_a_padded_mesh_identifier_is_brought_to_its_own_form(given_id: str, expected: str) -> None:
    assert mesh_id(given_id) == expected


RESULTS: dict[str, Any] = {
    "baselineCharacteristicsModule": {
        "groups": [{"id": "BG000", "title": "Placebo"}, {"id": "BG001", "title": "X"}],
        "denoms": [{"units": "Participants", "counts": [{"groupId": "BG001", "value": "4"}]}],
        "measures": [
            {
                "title": "Age",
                "paramType": "MEAN",
                "dispersionType": "STANDARD_DEVIATION",
                "unitOfMeasure": "years",
                "classes": [{"categories": [{"measurements": [{"groupId": "BG000", "value": "40", "spread": "2.5"}]}]}],
            }
        ],
    },
    "outcomeMeasuresModule": {
        "outcomeMeasures": [
            {
                "type": "PRIMARY",
                "title": "FEV1",
                "timeFrame": "12 weeks",
                "groups": [{"id": "OG000", "title": "X"}],
                "classes": [
                    {
                        "title": "Day 1",
                        "categories": [
                            {"measurements": [{"groupId": "OG000", "value": "2", "lowerLimit": "1", "upperLimit": "3"}]}
                        ],
                    }
                ],
                "analyses": [{"groupIds": ["OG000"], "pValue": "<0.01", "statisticalMethod": "ANOVA"}],
            }
        ]
    },
    "adverseEventsModule": {
        "eventGroups": [{"id": "EG000", "title": "X", "seriousNumAffected": 0, "seriousNumAtRisk": 8}],
        "seriousEvents": [
            {
                "term": "Nausea",
                "organSystem": "Gut",
                "stats": [{"groupId": "EG000", "numAffected": 1, "numAtRisk": 8}],
            }
        ],
    },
}


def tables(document: Document) -> list[Block]:
    return [block for block in document.blocks() if block.kind is BlockKind.TABLE]


def test_results_become_tables_that_people_can_read() -> None:
    record = {**STUDY, "resultsSection": RESULTS}
    baseline, outcome, analysis, groups, serious = tables(parse(record))
    assert baseline.rows == (
        ("", "Placebo", "X"),
        ("Participants", "", "4"),
        ("Age, Mean (Standard deviation), years", "40 (2.5)", ""),
    )
    assert baseline.text.splitlines()[0] == "Placebo | X"
    assert outcome.rows == (("", "X"), ("Day 1", "2 (1 \N{EN DASH} 3)"))
    assert analysis.rows[1][:3] == ("X", "ANOVA", "<0.01")
    assert groups.rows[1] == ("X", "", "0/8", "")
    assert serious.rows == (("Serious events", "X"), ("Nausea (Gut)", "1/8"))
    assert lost_blocks(parse(record), payload_of(record)) == []


def test_a_flood_of_adverse_events_is_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_ROWS", 3)
    event = RESULTS["adverseEventsModule"]["seriousEvents"][0]
    flood = {**RESULTS, "adverseEventsModule": {**RESULTS["adverseEventsModule"], "seriousEvents": [event] * 50}}
    document = parse({**STUDY, "resultsSection": flood})
    assert len(tables(document)[-1].rows) == 1 + 3
    assert document.metadata["results_truncated"] is True


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", PayloadMalformedError),
        ("{", PayloadMalformedError),
        ('{"a": "\ud800"}', PayloadMalformedError),
        ("[]", PayloadUnsupportedError),
        ("{}", PayloadUnsupportedError),
        ('{"FullStudiesResponse": {}}', PayloadUnsupportedError),
        ('{"protocolSection": {"identificationModule": {"nctId": true}}}', PayloadUnsupportedError),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, PayloadTooLargeError),
    ],
)
def test_what_is_no_study_is_refused_by_name(text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="NCT00000001"):
        parse_study(CTX, RawPayload("files", "NCT00000001", CTG_STUDY, text=text))


def test_a_nul_in_a_text_becomes_a_replacement_that_validation_counts() -> None:
    record = json.loads(json.dumps(STUDY))
    record["protocolSection"]["conditionsModule"]["conditions"] = ["a\x00b"]
    assert fields(parse(record), "condition") == [("a\N{REPLACEMENT CHARACTER}b", {})]


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_whatever_takes_the_place_of_a_value_nothing_breaks(data: st.DataObject) -> None:
    """Any value of the record is replaced by any other: the document gets smaller or odd, never an exception."""
    record = json.loads(json.dumps({**STUDY, "resultsSection": RESULTS}))
    for _ in range(data.draw(st.integers(1, 4))):
        _replace(record, data)
    record["protocolSection"] = record.get("protocolSection") if isinstance(record.get("protocolSection"), dict) else {}
    record["protocolSection"]["identificationModule"] = {"nctId": "NCT00000001"}
    document = parse(record)
    encode_artefact(document)
    assert lost_blocks(document, payload_of(record)) == []


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "title", "text"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def _replace(record: Any, data: st.DataObject) -> None:
    at = record
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or data.draw(st.integers(0, 4)) == 0:
            at[key] = data.draw(_ANYTHING)
            return
        at = at[key]


def test_a_pointer_escapes_what_a_pointer_has_to() -> None:
    assert Node({"a/b": {"c~d": 1}}).get("a/b", "c~d").at == "/a~1b/c~0d"
