"""An extract stage that finds doses ("aspirin 100 mg") of the drugs it is told about."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from medkg.contracts.context import StageContext
from medkg.contracts.document import Claim, Document, Entity, EvidencePassage, Extraction, Mention, TextSpan
from medkg.contracts.ids import stable_id
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType


class DoseOptions(Options):
    """What a topology may say under ``with:``."""

    drugs: tuple[str, ...] = Field(min_length=1, max_length=1_000)


class DoseExtractor:
    """Pure, and safe to call from several threads: the same document always gives the same extraction."""

    def __init__(self, drugs: tuple[str, ...]) -> None:
        names = "|".join(re.escape(drug) for drug in sorted(drugs, key=len, reverse=True))
        self._dose = re.compile(rf"\b({names})\s+(\d{{1,6}}(?:\.\d{{1,3}})?\s?(?:mg|g|ml))\b", re.IGNORECASE)

    def execute(self, ctx: StageContext, document: Document) -> Extraction:
        """Every dose as a claim of the document, with the words it was read from."""
        this = Entity(f"doc:{document.doc_id}", "document", document.title)
        entities, claims, passages = {this.entity_id: this}, [], {}
        for section in document.sections:
            for block in section.blocks:
                for found in self._dose.finditer(block.text):
                    drug, dose = found[1].lower(), found[2]
                    mention = Mention(TextSpan(block.block_id, found.start(), found.end()), found[0])
                    entities[f"drug:{drug}"] = Entity(f"drug:{drug}", "drug", drug)
                    claims.append(
                        Claim(
                            claim_id=stable_id("claim", document.doc_id, block.block_id, found.start()),
                            subject=this.entity_id,
                            predicate="gives_dose",
                            object_entity=f"drug:{drug}",
                            qualifiers={"dose": dose},
                            evidence=(mention,),
                            method="doses",
                        )
                    )
                    passages[block.block_id] = EvidencePassage(section.path, block.text, block.provenance)
        told = (document.doc_id, document.title, document.source, document.source_id)
        return Extraction(*told, tuple(entities.values()), tuple(claims), passages)


@asynccontextmanager
async def _open(options: DoseOptions, host: Host) -> AsyncIterator[DoseExtractor]:
    yield DoseExtractor(options.drugs)  # a model would be loaded before, and closed after


DOSES = StageImplementation(stage_type=StageType.EXTRACT, name="doses", version="1", options=DoseOptions, open=_open)
