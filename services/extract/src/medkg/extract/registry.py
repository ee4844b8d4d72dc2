"""What the fields of a registry record say, field by field: the predicate of each is in the table below."""

from collections.abc import Mapping
from dataclasses import dataclass

from medkg.contracts.document import Block, BlockKind, Document, Section
from medkg.extract.dictionary import TYPES, Term, mesh_id_of
from medkg.extract.draft import Draft, Place
from medkg.extract.identity import named_entity
from medkg.extract.matching import Matcher

METHOD = "registry"
MAX_VALUE_LENGTH = 1_000  # of a claim's literal; the whole text stands in its evidence


@dataclass(frozen=True, slots=True)
class Rule:
    """A field becomes a claim of the study: about an entity of ``entity_type``, or where that is empty, a literal.

    ``linked_types``: kinds of descriptor that the field's text may name; ``is_mesh``: the field is a descriptor itself;
    ``value_attribute``: the literal is this attribute, the text is only where it was read.
    """

    predicate: str
    entity_type: str = ""
    linked_types: tuple[str, ...] = ()
    is_mesh: bool = False
    value_attribute: str = ""


RULES = {
    "condition": Rule("investigates_condition", "condition", ("condition",)),
    "keyword": Rule("has_keyword", linked_types=TYPES),
    "intervention": Rule("tests_intervention", "intervention", ("intervention",)),
    "condition_mesh": Rule("investigates_condition", "condition", is_mesh=True),
    "intervention_mesh": Rule("tests_intervention", "intervention", is_mesh=True),
    "condition_ancestor": Rule("falls_under", "condition", is_mesh=True),
    "intervention_ancestor": Rule("falls_under", "intervention", is_mesh=True),
    "mesh_term": Rule("has_keyword", "descriptor", is_mesh=True),  # an article's: it does not say of which kind
    "lead_sponsor": Rule("sponsored_by", "sponsor"),
    "collaborator": Rule("supported_by", "sponsor"),
    "primary_outcome": Rule("measures_primary_outcome", "outcome"),
    "secondary_outcome": Rule("measures_secondary_outcome", "outcome"),
    "other_outcome": Rule("measures_other_outcome", "outcome"),
    "eligibility_criterion": Rule("has_eligibility_criterion"),  # of a record that does not say which half it is in
    "phase": Rule("has_phase"),
    "study_type": Rule("has_study_type"),
    "allocation": Rule("has_allocation"),
    "masking": Rule("has_masking"),
    "primary_purpose": Rule("has_primary_purpose"),
    "overall_status": Rule("has_status"),
    "why_stopped": Rule("stopped_because"),
    "enrollment": Rule("has_enrollment"),
    "sex": Rule("admits_sex"),
    "minimum_age": Rule("has_minimum_age"),
    "maximum_age": Rule("has_maximum_age"),
    "start_date": Rule("started_on"),
    "completion_date": Rule("completed_on"),
    "location": Rule("conducted_in", value_attribute="country"),
}
_CRITERION = "eligibility_criterion"
_CRITERIA = {"inclusion": Rule("includes_if"), "exclusion": Rule("excludes_if")}
_STUDY_NAMES = frozenset({"acronym", "brief_title", "official_title"})
_QUALIFIERS = frozenset({"type", "class", "arm_labels", "time_frame"})  # the attributes that say more of a claim


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that are known for one document: its own descriptors first, then the dictionary's."""

    own: Matcher
    dictionary: Matcher
    terms: Mapping[str, Term]

    @property
    def matchers(self) -> tuple[Matcher, Matcher]:
        return self.own, self.dictionary

    def kind_of(self, mesh_id: str) -> str:
        """What a descriptor of the record is."""
        return self.terms[f"mesh:{mesh_id}"].type

    def named(self, text: str, kinds: tuple[str, ...]) -> Term | None:
        """The descriptor of one of these kinds that the whole of ``text`` names."""
        for matcher in self.matchers:
            name = matcher.whole(text)
            if name is not None and self.terms[name.entity_id].type in kinds:
                return self.terms[name.entity_id]
        return None


def own_terms(document: Document) -> list[Term]:
    """The descriptors that a record carries, ancestors last."""
    found: dict[str, Term] = {}
    for suffix in ("_mesh", "_term", "_ancestor"):
        for block in document.blocks():
            rule = RULES.get(block.role)
            if block.kind is BlockKind.FIELD and rule and rule.is_mesh and block.role.endswith(suffix):
                mesh_id = mesh_id_of(block.attributes.get("mesh_id", ""))
                name = " ".join(block.text.split())
                if mesh_id and name:
                    found.setdefault(mesh_id, Term(mesh_id, rule.entity_type, name))
    return list(found.values())


def read_fields(document: Document, study: str, vocabulary: Vocabulary, draft: Draft) -> None:
    """Note every claim that the fields of a record make about the study."""
    for section in document.sections:
        for block in section.blocks:
            if block.kind is not BlockKind.FIELD or not block.text.strip():
                continue
            rule = _rule_of(block)
            if rule is not None:
                _read_field(section, block, rule, study, vocabulary, draft)
            elif block.role in _STUDY_NAMES:
                draft.alias(study, block.text)


def _rule_of(block: Block) -> Rule | None:
    if block.role == _CRITERION and block.attributes.get("kind") in _CRITERIA:
        return _CRITERIA[block.attributes["kind"]]
    return RULES.get(block.role)


def _read_field(section: Section, block: Block, rule: Rule, study: str, vocabulary: Vocabulary, draft: Draft) -> None:
    place = Place.whole(section, block)
    text = " ".join(block.text.split())
    entity_id = _entity(text, block, rule, vocabulary, draft)
    value = ""
    if entity_id:
        draft.mention(entity_id, place)
        for alias in filter(None, block.attributes.get("other_names", "").split("; ")):
            draft.alias(entity_id, alias)
    else:
        value = block.attributes.get(rule.value_attribute, "") if rule.value_attribute else text
        if not value:
            return
    draft.claim(
        study,
        rule.predicate,
        place,
        object_entity=entity_id,
        object_value=_shortened(value),
        qualifiers={name: block.attributes[name] for name in sorted(_QUALIFIERS & block.attributes.keys())},
        method=METHOD,
    )


def _entity(text: str, block: Block, rule: Rule, vocabulary: Vocabulary, draft: Draft) -> str:
    """The entity that a field names; empty where the field is a literal, or holds nothing that could name one."""
    mesh_id = mesh_id_of(block.attributes.get("mesh_id", "")) if rule.is_mesh else ""
    if mesh_id:
        return draft.entity(f"mesh:{mesh_id}", vocabulary.kind_of(mesh_id), text, identifiers={"mesh": mesh_id})
    term = vocabulary.named(text, rule.linked_types) if rule.linked_types else None
    if term is not None:
        return term_entity(term, draft, alias=text)
    entity_id = named_entity(rule.entity_type, text) if rule.entity_type else ""
    return draft.entity(entity_id, rule.entity_type, _shortened(text)) if entity_id else ""


def term_entity(term: Term, draft: Draft, *, alias: str) -> str:
    """Note the entity of a descriptor, under the name by which the document calls it."""
    draft.entity(term.entity_id, term.type, term.name, identifiers={"mesh": term.mesh_id})
    draft.alias(term.entity_id, alias)
    return term.entity_id


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"
