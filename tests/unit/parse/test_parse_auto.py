"""The parser is chosen by media type, and bounded before it begins."""

from pathlib import Path

import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import RawPayload
from medkg.contracts.errors import PayloadTooLargeError, PayloadUnsupportedError
from medkg.parse.stage import AutoParser

CTX = StageContext("t", "doc", "job")
STUDY = '{"protocolSection": {"identificationModule": {"nctId": "NCT00000001"}}}'
ARTICLE = "<article><front/><body><p>x</p></body></article>"


@pytest.mark.parametrize(
    ("media", "text", "kind"),
    [
        ("application/vnd.clinicaltrials.study.v2+json", STUDY, "trial"),
        ("application/json; charset=utf-8", STUDY, "trial"),
        ("application/jats+xml", ARTICLE, "article"),
        ("TEXT/XML", ARTICLE, "article"),
        ("text/plain;charset=utf-8", "words", "text"),
        ("text/markdown", "words", "text"),
    ],
)
def test_the_media_type_chooses_the_parser(media: str, text: str, kind: str) -> None:
    document = AutoParser(1_000).execute(CTX, RawPayload("s", "id", media, text=text))
    assert (document.kind, document.doc_id, document.source, document.source_id) == (kind, "doc", "s", "id")


@pytest.mark.parametrize("media", ["application/pdf", "", ";", "text"])
def test_what_nothing_reads_is_refused_with_what_is_read(media: str) -> None:
    with pytest.raises(PayloadUnsupportedError, match="text/plain"):
        AutoParser(1_000).execute(CTX, RawPayload("s", "id", media, text="x"))


def test_a_record_over_the_bound_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(PayloadTooLargeError, match="max_characters"):
        AutoParser(10).execute(CTX, RawPayload("s", "id", "application/json", text="x" * 11))


async def test_the_installed_stage_takes_its_bound_from_the_topology(tmp_path: Path) -> None:
    from medkg.contracts.implementation import Host
    from medkg.parse.app import AUTO, ParseOptions

    options = AUTO.options.model_validate({"max_characters": 5})
    assert isinstance(options, ParseOptions)
    async with AUTO.open(options, Host(tmp_path, blobs=None)) as stage:  # type: ignore[arg-type]  # it lends nothing here
        with pytest.raises(PayloadTooLargeError):
            stage.execute(CTX, RawPayload("s", "id", "text/plain", text="sixsix"))
