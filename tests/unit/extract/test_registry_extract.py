"""From a document to entities and claims, each of which leads back to the text."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.context import StageContext
from medkg.contracts.document import (
    Block,
    BlockKind,
    Claim,
    Document,
    Extraction,
    Provenance,
    Section,
    SectionKind,
)
from medkg.contracts.errors import PayloadTooLargeError
from medkg.contracts.stages import encode_artefact
from medkg.extract import draft
from medkg.extract.dictionary import Dictionary, Term
from medkg.extract.stage import RegistryExtractor

CTX = StageContext("default", "doc-1", "job-1")
TERMS = (
    Term("D003924", "condition", "Diabetes Mellitus, Type 2", ("type 2 diabetes",)),
    Term("D006333", "condition", "Heart Failure"),
    Term("D000077203", "intervention", "Sodium-Glucose Transporter 2 Inhibitors", ("SGLT2 inhibitor",)),
)
STUDY = "nct:NCT99000101"


def field(role: str, text: str, **attributes: str) -> Block:
    return Block("", text, Provenance("r"), BlockKind.FIELD, role=role, attributes=attributes)


def paragraph(text: str) -> Block:
    return Block("", text, Provenance("r"))


def section(kind: SectionKind, *blocks: Block, title: str = "Part") -> Section:
    return Section(f"{kind}-{title}", (title,), blocks, kind)


def document(*sections: Section, kind: str = "trial", **identifiers: str) -> Document:
    numbered = tuple(
        msgspec.structs.replace(
            part,
            blocks=tuple(
                msgspec.structs.replace(block, block_id=f"s{at}.{place}") for place, block in enumerate(part.blocks)
            ),
        )
        for at, part in enumerate(sections)
    )
    return Document(
        doc_id="doc-1",
        source="files",
        source_id="NCT99000101",
        kind=kind,
        title="A Trial",
        sections=numbered,
        identifiers=identifiers or {"nct": "NCT99000101"},
    )


def extract(*sections: Section, kind: str = "trial", terms: Sequence[Term] = TERMS, **identifiers: str) -> Extraction:
    return RegistryExtractor(Dictionary(terms)).execute(CTX, document(*sections, kind=kind, **identifiers))


def said(extraction: Extraction, predicate: str) -> list[str]:
    return [c.object_entity or c.object_value for c in extraction.claims if c.predicate == predicate]


def one(extraction: Extraction, predicate: str) -> Claim:
    (claim,) = [c for c in extraction.claims if c.predicate == predicate]
    return claim


@pytest.mark.parametrize(
    ("block", "predicate", "value"),
    [
        (field("phase", "Phase 3", value="PHASE3"), "has_phase", "Phase 3"),
        (field("study_type", "Interventional"), "has_study_type", "Interventional"),
        (field("overall_status", "Completed"), "has_status", "Completed"),
        (field("enrollment", "1240", type="ACTUAL"), "has_enrollment", "1240"),
        (field("sex", "All"), "admits_sex", "All"),
        (field("minimum_age", "18 Years"), "has_minimum_age", "18 Years"),
        (field("maximum_age", "80 Years"), "has_maximum_age", "80 Years"),
        (field("start_date", "2020-03"), "started_on", "2020-03"),
        (field("completion_date", "2024-06"), "completed_on", "2024-06"),
        (field("keyword", "eGFR slope"), "has_keyword", "eGFR slope"),
        (field("location", "Ward, Town, Kenya", country="Kenya"), "conducted_in", "Kenya"),
        (field("eligibility_criterion", "Age 18", kind="inclusion"), "includes_if", "Age 18"),
        (field("eligibility_criterion", "Dialysis", kind="exclusion"), "excludes_if", "Dialysis"),
        (field("eligibility_criterion", "Consent"), "has_eligibility_criterion", "Consent"),
        (field("lead_sponsor", "Northlake  Institute"), "sponsored_by", "name:sponsor:northlake institute"),
        (field("collaborator", "Harrowgate"), "supported_by", "name:sponsor:harrowgate"),
        (field("primary_outcome", "Deaths", time_frame="1 year"), "measures_primary_outcome", "name:outcome:death"),
        (field("secondary_outcome", "Falls"), "measures_secondary_outcome", "name:outcome:fall"),
        (field("condition", "Herniated Disc"), "investigates_condition", "name:condition:herniated disc"),
        (field("condition", "Type 2 Diabetes"), "investigates_condition", "mesh:D003924"),
        (field("intervention", "Microdiscectomy"), "tests_intervention", "name:intervention:microdiscectomy"),
        (field("condition_mesh", "Asthma", mesh_id="D000001249"), "investigates_condition", "mesh:D001249"),
        (field("condition_mesh", "Asthma"), "investigates_condition", "name:condition:asthma"),
        (field("intervention_mesh", "dupilumab", mesh_id="C582203"), "tests_intervention", "mesh:C582203"),
        (field("condition_ancestor", "Lung Diseases", mesh_id="D008171"), "falls_under", "mesh:D008171"),
    ],
)
def test_a_field_becomes_a_claim_of_the_study(block: Block, predicate: str, value: str) -> None:
    extraction = extract(section(SectionKind.REGISTRY, block))
    claim = one(extraction, predicate)
    assert (claim.subject, claim.object_entity or claim.object_value) == (STUDY, value)
    (evidence,) = claim.evidence
    assert (evidence.span.block_id, evidence.text) == ("s0.0", block.text)
    assert (claim.method, claim.confidence) == ("registry", 1.0)


def test_what_a_claim_is_qualified_by_comes_from_the_field() -> None:
    block = field(
        "intervention", "Drug X", type="DRUG", arm_labels="A; B", other_names="X-1; Xol", value="?", time_frame="1 y"
    )
    extraction = extract(section(SectionKind.REGISTRY, block))
    assert one(extraction, "tests_intervention").qualifiers == {
        "arm_labels": "A; B",
        "time_frame": "1 y",
        "type": "DRUG",
    }
    (drug,) = [e for e in extraction.entities if e.type == "intervention"]
    assert drug.aliases == ("X-1", "Xol")


def test_a_condition_is_linked_to_the_records_own_descriptor_and_both_places_are_evidence() -> None:
    extraction = extract(
        section(SectionKind.REGISTRY, field("condition", "falciparum malaria")),
        section(SectionKind.TERMS, field("condition_mesh", "Malaria, Falciparum", mesh_id="D016778")),
        terms=(),
    )
    claim = one(extraction, "investigates_condition")
    assert claim.object_entity == "mesh:D016778"
    assert [m.text for m in claim.evidence] == ["falciparum malaria", "Malaria, Falciparum"]
    (entity,) = [e for e in extraction.entities if e.type == "condition"]
    assert (entity.name, entity.aliases) == ("Malaria, Falciparum", ("falciparum malaria",))


def test_a_name_is_linked_only_to_a_descriptor_of_its_own_kind() -> None:
    extraction = extract(section(SectionKind.REGISTRY, field("intervention", "heart failure")))
    assert said(extraction, "tests_intervention") == ["name:intervention:heart failure"]


def test_a_keyword_that_names_a_descriptor_leads_to_it() -> None:
    extraction = extract(section(SectionKind.REGISTRY, field("keyword", "SGLT2 inhibitors")))
    assert said(extraction, "has_keyword") == ["mesh:D000077203"]


def test_text_mentions_what_the_dictionary_and_the_records_own_terms_name() -> None:
    text = "Heart failure and type 2 diabetes; later heart failure again, and cystic fibrosis."
    extraction = extract(
        section(SectionKind.BODY, paragraph(text), title="Description"),
        section(SectionKind.TERMS, field("condition_mesh", "Cystic Fibrosis", mesh_id="D003550")),
    )
    assert said(extraction, "mentions") == ["mesh:D006333", "mesh:D003924", "mesh:D003550"]
    first = next(c for c in extraction.claims if c.predicate == "mentions")
    assert [(m.span.start, m.span.end, m.text) for m in first.evidence] == [
        (0, 13, "Heart failure"),
        (41, 54, "heart failure"),
    ]
    assert (first.method, first.confidence) == ("dictionary", 0.9)
    assert extraction.passages["s0.0"].text == text
    assert extraction.passages["s0.0"].section_path == ("Description",)


def test_the_dictionary_does_not_read_references_terms_places_or_names() -> None:
    extraction = extract(
        section(SectionKind.REFERENCES, paragraph("Heart failure in 1999")),
        section(SectionKind.TERMS, field("condition_ancestor", "Heart Failure", mesh_id="D006333")),
        section(
            SectionKind.REGISTRY,
            field("lead_sponsor", "Heart Failure Society"),
            field("location", "Heart Failure Clinic, Town"),
            Block("", "heart failure = x", Provenance("r"), BlockKind.EQUATION),
        ),
    )
    assert said(extraction, "mentions") == []


def test_criteria_and_outcomes_are_read_as_text_too() -> None:
    extraction = extract(
        section(
            SectionKind.REGISTRY,
            field("eligibility_criterion", "No heart failure", kind="exclusion"),
            field("primary_outcome", "Onset of type 2 diabetes"),
        )
    )
    assert said(extraction, "mentions") == ["mesh:D006333", "mesh:D003924"]


def test_an_article_is_its_own_subject_and_names_the_trials_it_reports() -> None:
    extraction = extract(
        section(SectionKind.ABSTRACT, paragraph("In a trial (NCT99000102) of heart failure, not XNCT99000103.")),
        kind="article",
        doi="10.55555/MedKG.2024.001",
        pmcid="PMC99000001",
    )
    subject = extraction.entities[0]
    assert (subject.entity_id, subject.type) == ("doi:10.55555/medkg.2024.001", "article")
    assert said(extraction, "mentions_study") == ["nct:NCT99000102"]
    assert said(extraction, "mentions") == ["mesh:D006333"]


def test_a_mesh_term_of_an_article_takes_its_kind_from_the_dictionary_where_that_knows_it() -> None:
    extraction = extract(
        section(SectionKind.TERMS, field("mesh_term", "Heart Failure", mesh_id="D006333")),
        section(SectionKind.TERMS, field("mesh_term", "Spirometry", mesh_id="D013147"), field("mesh_term", "Lungs")),
        section(SectionKind.BODY, paragraph("by spirometry")),
        kind="article",
        doi="10.55555/x",
    )
    assert said(extraction, "has_keyword") == ["mesh:D006333", "mesh:D013147", "name:descriptor:lung"]
    assert said(extraction, "mentions") == ["mesh:D013147"]
    assert [e.type for e in extraction.entities[1:]] == ["condition", "descriptor", "descriptor"]


def test_a_trial_does_not_mention_itself() -> None:
    assert said(extract(section(SectionKind.BODY, paragraph("This is NCT99000101."))), "mentions_study") == []


def test_a_document_without_identifiers_has_a_subject_of_its_own() -> None:
    extraction = extract(section(SectionKind.BODY, paragraph("heart failure")), kind="text", other="x")
    assert extraction.entities[0].entity_id == "doc:doc-1"


def test_titles_and_the_acronym_are_other_names_of_the_study() -> None:
    extraction = extract(section(SectionKind.REGISTRY, field("acronym", "LANTERN"), field("brief_title", "A trial")))
    assert extraction.entities[0].aliases == ("LANTERN",), "a name that differs in case only is none"


def test_the_same_claim_twice_is_one_claim_with_two_places_and_both_qualifiers() -> None:
    extraction = extract(
        section(
            SectionKind.REGISTRY,
            field("primary_outcome", "Pain", time_frame="1 week"),
            field("primary_outcome", "pain", time_frame="1 year"),
        )
    )
    claim = one(extraction, "measures_primary_outcome")
    assert claim.qualifiers == {"time_frame": "1 week | 1 year"}
    assert len(claim.evidence) == 2


def test_a_long_criterion_is_shortened_in_the_claim_and_whole_in_the_evidence() -> None:
    long = "word " * 1_000
    claim = one(
        extract(section(SectionKind.REGISTRY, field("eligibility_criterion", long, kind="inclusion"))), "includes_if"
    )
    assert len(claim.object_value) == 1_000 and claim.object_value.endswith("…")
    assert claim.evidence[0].text == long


def test_a_very_long_name_gets_an_id_of_bounded_length() -> None:
    names = ["x" * 10_000, "x" * 10_001]
    ids = [
        said(extract(section(SectionKind.REGISTRY, field("condition", n))), "investigates_condition")[0] for n in names
    ]
    assert ids[0] != ids[1] and all(len(entity_id) < 200 for entity_id in ids)


def test_a_field_of_marks_alone_is_kept_as_a_literal() -> None:
    assert said(extract(section(SectionKind.REGISTRY, field("condition", "???"))), "investigates_condition") == ["???"]
    assert said(extract(section(SectionKind.REGISTRY, field("condition", "   "))), "investigates_condition") == []


def test_evidence_and_mentions_of_a_repetitive_text_are_bounded() -> None:
    extraction = extract(section(SectionKind.BODY, paragraph("heart failure, " * 5_000)))
    (claim,) = extraction.claims
    assert len(claim.evidence) == draft.MAX_EVIDENCE
    assert len(extraction.entities[1].mentions) == draft.MAX_MENTIONS


def test_a_record_of_absurdly_many_claims_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "MAX_CLAIMS", 3)
    with pytest.raises(PayloadTooLargeError, match="more than 3 claims"):
        extract(section(SectionKind.REGISTRY, *(field("keyword", f"k{n}") for n in range(4))))


def test_a_result_does_not_depend_on_the_documents_before_it() -> None:
    stage = RegistryExtractor(Dictionary(TERMS))
    mentions = document(section(SectionKind.BODY, paragraph("cystic fibrosis, heart failure")), nct="NCT99000109")
    teaches = document(
        section(
            SectionKind.TERMS,
            field("condition_mesh", "Cystic Fibrosis", mesh_id="D003550"),
            field("intervention_mesh", "Cardiac Failure", mesh_id="D006333"),
        ),
        nct="NCT99000108",
    )
    before = encode_artefact(stage.execute(CTX, mentions))
    stage.execute(CTX, teaches)
    assert encode_artefact(stage.execute(CTX, mentions)) == before


ROLES = st.sampled_from(
    [
        "condition",
        "intervention",
        "keyword",
        "phase",
        "condition_mesh",
        "eligibility_criterion",
        "location",
        "acronym",
        "?",
    ]
)
TEXTS = st.text(max_size=40) | st.sampled_from(["Heart failure", "type 2 diabetes", "NCT99000199"])
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["mesh_id", "kind", "type", "country", "other_names"]), st.text(max_size=12), max_size=3
)
BLOCKS = st.builds(lambda role, text, attributes: field(role, text, **attributes), ROLES, TEXTS, ATTRIBUTES)


@given(st.lists(BLOCKS | TEXTS.map(paragraph), max_size=12))
def test_every_claim_leads_back_to_the_text_whatever_the_document_holds(blocks: list[Block]) -> None:
    whole = document(section(SectionKind.REGISTRY, *blocks))
    stage = RegistryExtractor(Dictionary(TERMS))
    extraction = stage.execute(CTX, whole)
    texts = {block.block_id: block.text for block in whole.blocks()}
    ids = {entity.entity_id for entity in extraction.entities}
    assert len(ids) == len(extraction.entities)
    assert len({claim.claim_id for claim in extraction.claims}) == len(extraction.claims)
    mentions = [m for e in extraction.entities for m in e.mentions]
    for claim in extraction.claims:
        assert claim.evidence and claim.subject in ids and claim.object_entity in ids | {""}
        assert bool(claim.object_entity) != bool(claim.object_value)
        assert all(m.span.block_id in extraction.passages for m in claim.evidence)
        mentions += claim.evidence
    for mention in mentions:
        assert texts[mention.span.block_id][mention.span.start : mention.span.end] == mention.text
    assert encode_artefact(stage.execute(CTX, whole)) == encode_artefact(extraction)
