"""Reading entities and claims out of a document without a model: registry fields and a dictionary of names."""

from collections import ChainMap

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, Extraction
from medkg.extract.dictionary import TYPES, Dictionary
from medkg.extract.draft import Draft
from medkg.extract.identity import subject_of
from medkg.extract.mentions import read_text
from medkg.extract.registry import Vocabulary, own_terms, read_fields


class RegistryExtractor:
    """An ExtractStage. Pure: the same document and dictionary give the same extraction, to the byte, in any thread.

    A trial becomes a study with what its fields say of it (conditions, interventions, phase, sponsor, outcomes,
    eligibility …); any document gets a ``mentions`` claim for each descriptor that its text names. Every claim carries
    the spans it was read from. Linear in the length of the document.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary

    def execute(self, ctx: StageContext, document: Document) -> Extraction:
        """What the document says.

        Raises:
            PayloadTooLargeError: it makes more claims than any honest record.
        """
        vocabulary = self._vocabulary(document)
        subject, kind = subject_of(document)
        draft = Draft(document)
        draft.entity(subject, kind, document.title or document.source_id, identifiers=dict(document.identifiers))
        read_fields(document, subject, vocabulary, draft)
        read_text(document, subject, vocabulary, draft)
        return draft.extraction()

    def _vocabulary(self, document: Document) -> Vocabulary:
        known = self._dictionary.terms
        own = Dictionary(term for term in own_terms(document) if term.type in TYPES or term.entity_id not in known)
        return Vocabulary(own.matcher, self._dictionary.matcher, ChainMap(own.terms, known))
