"""What it costs to read and write one work message: msgspec, as the fleet does it, beside pydantic.

Run it with ``.venv/bin/python benchmarks/codec.py``; the figures in docs/decisions/0003 come from here.
"""

import hashlib
import platform
import timeit
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
from pydantic import BaseModel, ConfigDict

from medkg.contracts import document as ir
from medkg.contracts.messages import REQUEST_DECODER, Artefact, PipelineRef, StageRequest, encode
from medkg.contracts.stages import encode_artefact

ROUNDS = 7  # the best one counts: the others were disturbed
CALLS = 5_000

SENTENCE = "Participants received 20 mg of the drug or a placebo once daily for twelve weeks. "


class PydanticModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PydanticProvenance(PydanticModel):
    record: str
    path: str = ""
    page: int | None = None
    box: tuple[float, float, float, float] | None = None


class PydanticBlock(PydanticModel):
    block_id: str
    text: str
    provenance: PydanticProvenance
    kind: ir.BlockKind = ir.BlockKind.PARAGRAPH
    role: str = ""
    attributes: dict[str, str] = {}
    rows: tuple[tuple[str, ...], ...] = ()
    header_rows: int = 0


class PydanticSection(PydanticModel):
    section_id: str
    path: tuple[str, ...]
    blocks: tuple[PydanticBlock, ...]
    kind: ir.SectionKind = ir.SectionKind.BODY


class PydanticDocument(PydanticModel):
    doc_id: str
    source: str
    source_id: str
    kind: str
    title: str
    sections: tuple[PydanticSection, ...]
    identifiers: dict[str, str] = {}
    metadata: dict[str, str | int | float | bool | None] = {}
    language: str = ""


class PydanticPipeline(PydanticModel):
    name: str
    version: str
    digest: str


class PydanticArtefact(PydanticModel):
    kind: str
    sha256: str
    size_bytes: int
    key: str = ""
    inline: Any = None


class PydanticRequest(PydanticModel):
    job_id: str
    tenant_id: str
    stage: str
    pipeline: PydanticPipeline
    revision: int
    doc_id: str = ""
    attempt: int = 1
    page: int = 0
    arrived_from: str = ""
    artefacts: dict[str, PydanticArtefact] = {}
    metadata: dict[str, str | int | float | bool | None] = {}


def sample_document() -> ir.Document:
    """A trial record of about 1.9 kB as JSON: six blocks in two sections."""
    sections = tuple(
        ir.Section(
            f"s{number}",
            ("Protocol", heading),
            tuple(
                ir.Block(
                    f"s{number}b{at}", SENTENCE * 2, ir.Provenance("NCT00000000", f"/protocolSection/{heading}/{at}")
                )
                for at in range(3)
            ),
        )
        for number, heading in enumerate(("description", "eligibility"))
    )
    return ir.Document(
        "d" * 32, "files", "NCT00000000", "trial", "A trial", sections, {"nct": "NCT00000000"}, {"year": 2024}
    )


def sample_request(inline: bytes) -> StageRequest:
    artefact = Artefact("document", hashlib.sha256(inline).hexdigest(), len(inline), inline=msgspec.Raw(inline))
    pipeline = PipelineRef("auto", "1.0", "f" * 64)
    return StageRequest(
        job_id="a" * 32,
        tenant_id="default",
        stage="chunk",
        pipeline=pipeline,
        revision=1_760_000_000_000_000,
        doc_id="d" * 32,
        arrived_from="ir_validation",
        artefacts={"document": artefact},
        metadata={"year": 2024, "phase": "PHASE3"},
    )


def microseconds(call: Callable[[], object]) -> float:
    """Of one call, in the quietest of several rounds."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    sample = sample_document()
    inline = encode_artefact(sample)
    request = sample_request(inline)
    wire = encode(request)
    parsed = PydanticRequest.model_validate_json(wire)
    document = PydanticDocument.model_validate_json(inline)
    read_document = msgspec.json.Decoder(ir.Document).decode

    print(f"Python {platform.python_version()}, msgspec {msgspec.__version__}, pydantic {pydantic.VERSION}")
    print(f"message {len(wire)} bytes, document within {len(inline)} bytes; microseconds a call\n")
    print(f"{'':40}{'msgspec':>10}{'pydantic':>10}{'ratio':>8}")
    for what, ours, theirs in (
        ("read the message", lambda: REQUEST_DECODER.decode(wire), lambda: PydanticRequest.model_validate_json(wire)),
        ("write the message", lambda: encode(request), lambda: parsed.model_dump_json(exclude_defaults=True)),
        ("read the document", lambda: read_document(inline), lambda: PydanticDocument.model_validate_json(inline)),
        (
            "write the document",
            lambda: encode_artefact(sample),
            lambda: document.model_dump_json(exclude_defaults=True),
        ),
    ):
        fast, slow = microseconds(ours), microseconds(theirs)
        print(f"{what:40}{fast:10.2f}{slow:10.2f}{slow / fast:8.1f}")


if __name__ == "__main__":
    main()
