"""Real records: every claim of every study and article leads back to its text, and nothing is refused."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, RawPayload
from medkg.contracts.errors import ContentError
from medkg.contracts.media import CTG_STUDY, JATS
from medkg.contracts.stages import encode_artefact
from medkg.extract.dictionary import packaged_dictionary
from medkg.extract.stage import RegistryExtractor
from medkg.parse.ctg import parse_study
from medkg.parse.jats import parse_article

pytestmark = pytest.mark.corpus

CTX = StageContext("default", "doc-1", "job-1")


def documents(corpus: Path) -> Iterator[Document]:
    for path in [*sorted(corpus.glob("ctg/aact/NCT*.json")), corpus / "ctg/bulk/herniated_disc.ctg-studies.json"]:
        value = json.loads(path.read_text(encoding="utf-8"))
        for study in value if isinstance(value, list) else [value]:
            yield parse_study(CTX, RawPayload("files", path.stem, CTG_STUDY, text=json.dumps(study)))
    for path in sorted(corpus.glob("jats/*/*.*xml")):
        try:
            yield parse_article(CTX, RawPayload("files", path.stem, JATS, text=path.read_text(encoding="utf-8")))
        except ContentError:
            continue  # what the parse stage refuses does not come here


def test_every_claim_of_a_real_record_leads_back_to_its_text(corpus: Path) -> None:
    stage = RegistryExtractor(packaged_dictionary())
    kinds: Counter[str] = Counter()
    predicates: Counter[str] = Counter()
    for document in documents(corpus):
        extraction = stage.execute(CTX, document)
        texts = {block.block_id: block.text for block in document.blocks()}
        ids = {entity.entity_id for entity in extraction.entities}
        for claim in extraction.claims:
            assert claim.subject in ids and claim.object_entity in ids | {""} and claim.evidence
            for mention in claim.evidence:
                span = mention.span
                assert texts[span.block_id][span.start : span.end] == mention.text
        assert encode_artefact(stage.execute(CTX, document)) == encode_artefact(extraction)
        kinds[document.kind] += 1
        predicates.update({claim.predicate for claim in extraction.claims})
    assert kinds["trial"] > 100
    assert kinds["article"] > 20
    assert predicates["sponsored_by"] == predicates["has_status"] == kinds["trial"]
    assert predicates["investigates_condition"] >= kinds["trial"] - 2
