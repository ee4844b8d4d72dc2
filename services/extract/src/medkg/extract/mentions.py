"""What running text names: descriptors of the vocabulary, and studies by their registry number."""

import re

from medkg.contracts.document import Block, BlockKind, Document, Section, SectionKind
from medkg.extract.draft import Draft, Place
from medkg.extract.identity import identifier_entity
from medkg.extract.matching import find
from medkg.extract.registry import Vocabulary, term_entity

METHOD = "dictionary"
CONFIDENCE = 0.9  # a whole name in the text; below the registry's own word

_NCT = re.compile(r"\bNCT\d{8}\b")
_UNREAD_SECTIONS = frozenset({SectionKind.TERMS, SectionKind.REFERENCES})
_UNREAD_KINDS = frozenset({BlockKind.REFERENCE, BlockKind.EQUATION})
# Fields that hold phrases. The others hold names, whose meaning the field itself gives, or places ("Cancer Institute").
_READ_FIELDS = frozenset(
    {
        "brief_title",
        "official_title",
        "arm",
        "primary_outcome",
        "secondary_outcome",
        "other_outcome",
        "outcome_result",
        "eligibility_criterion",
    }
)


def read_text(document: Document, subject: str, vocabulary: Vocabulary, draft: Draft) -> None:
    """Note what the document's text mentions; linear in its length."""
    for section in document.sections:
        if section.kind in _UNREAD_SECTIONS:
            continue
        for block in section.blocks:
            if _is_text(block):
                _read_terms(section, block, subject, vocabulary, draft)
                _read_studies(section, block, subject, draft)


def _is_text(block: Block) -> bool:
    return block.role in _READ_FIELDS if block.kind is BlockKind.FIELD else block.kind not in _UNREAD_KINDS


def _read_terms(section: Section, block: Block, subject: str, vocabulary: Vocabulary, draft: Draft) -> None:
    for match in find(block.text, vocabulary.matchers):
        term = vocabulary.terms[match.name.entity_id]
        place = Place(section, block, match.start, match.end)
        entity_id = term_entity(term, draft, alias=match.name.text)
        draft.mention(entity_id, place)
        draft.claim(subject, "mentions", place, object_entity=entity_id, method=METHOD, confidence=CONFIDENCE)


def _read_studies(section: Section, block: Block, subject: str, draft: Draft) -> None:
    for match in _NCT.finditer(block.text):
        number = match.group()
        study = identifier_entity("nct", number)
        if study == subject:
            continue
        draft.entity(study, "study", number, identifiers={"nct": number})
        place = Place(section, block, match.start(), match.end())
        draft.mention(study, place)
        draft.claim(subject, "mentions_study", place, object_entity=study, method=METHOD)
