"""A document is measured in any script, and stopped by name, value and threshold."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, Document, Provenance, Section, SectionKind
from medkg.contracts.errors import QualityError
from medkg.contracts.topology import Checks
from medkg.validate.measures import measures_of
from medkg.validate.stage import CheckDocument

CTX = StageContext("t", "doc", "job")


def document(*texts: str, title: str = "Title", kind: SectionKind = SectionKind.BODY) -> Document:
    blocks = tuple(Block(f"s0.{n}", text, Provenance("r")) for n, text in enumerate(texts))
    return Document("doc", "files", "record-1", "text", title, (Section("s0", (), blocks, kind),))


def check(subject: Document, **thresholds: Any) -> dict[str, float]:
    return CheckDocument(Checks(**thresholds)).execute(CTX, subject).measures


@pytest.mark.parametrize(
    ("subject", "thresholds", "words"),
    [
        (document("abc"), {"min_characters": 4}, "characters is 3, under min_characters 4"),
        (document("abc"), {"max_characters": 2}, "characters is 3, over max_characters 2"),
        (document("abc"), {"min_sections": 2}, "sections is 1, under min_sections 2"),
        (document("abc", title=" "), {"require_title": True}, "require_title"),
        (document("a\ufffd\ufffdb"), {}, "replacement_ratio is 0.5, over max_replacement_ratio 0.01"),
        (document("a\x01b\x02"), {}, "replacement_ratio is 0.5"),
        (document("12 34 5a"), {}, "letter_ratio is 0.1667, under min_letter_ratio 0.3"),
        (document(*["same"] * 20), {}, "repeated_line_ratio is 0.95, over max_repeated_line_ratio 0.9"),
        (document(), {}, "characters is 0, under min_characters 1"),
        (document("only references", kind=SectionKind.REFERENCES), {}, "characters is 0"),
        (document("only terms", kind=SectionKind.TERMS), {}, "characters is 0"),
    ],
)
def test_a_missed_threshold_is_named_with_measure_value_and_limit(
    subject: Document, thresholds: dict[str, Any], words: str
) -> None:
    with pytest.raises(QualityError) as caught:
        check(subject, **thresholds)
    assert words in caught.value.message
    assert "record-1" in caught.value.message
    assert "characters" in caught.value.context


def test_every_missed_threshold_is_named_at_once() -> None:
    with pytest.raises(QualityError, match=r"characters is 3.*sections is 1.*letter_ratio is 0"):
        check(document("123"), min_characters=9, min_sections=9)


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox.",
        "Быстрая лиса и ленивая собака.",
        "临床试验的结果表明该药物有效。",
        "نتائج التجربة السريرية",
        "नैदानिक परीक्षण के परिणाम",
        "ผลการทดลองทางคลินิก",
        "臨床試験の結果",
        "임상 시험 결과",
        "Αποτελέσματα της μελέτης",
    ],
)
def test_text_of_any_script_passes_the_default_thresholds(text: str) -> None:
    measures = check(document(text))
    assert measures["letter_ratio"] > 0.85
    assert measures["characters"] == len(text)


def test_thresholds_are_inclusive() -> None:
    check(document("abcd"), min_characters=4, max_characters=4, min_sections=1)


def test_a_document_without_a_title_passes_with_a_warning() -> None:
    assert CheckDocument(Checks()).execute(CTX, document("abc", title="")).warnings == ("the document has no title",)


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_text_is_measured_within_bounds(texts: list[str]) -> None:
    measures = measures_of(document(*texts))
    assert all(0.0 <= measures[name] <= 1.0 for name in measures if name.endswith("_ratio"))
    assert measures["characters"] == sum(map(len, texts))


def test_measuring_costs_no_more_than_the_text_weighs() -> None:
    """Ten times the text takes about ten times as long: far from the hundredfold that a square would take."""
    small, large = document(*["word one\n" * 2_000]), document(*["word one\n" * 20_000])
    seconds = [min(_timed(subject) for _ in range(5)) for subject in (small, large)]
    assert seconds[1] < 40 * seconds[0]


def _timed(subject: Document) -> float:
    begun = time.perf_counter()
    measures_of(subject)
    return time.perf_counter() - begun


async def test_the_installed_stage_takes_its_thresholds_from_the_topology(tmp_path: Path) -> None:
    from medkg.contracts.implementation import Host
    from medkg.validate.app import CHECKS

    assert set(CHECKS.options.model_fields) == set(Checks.model_fields)
    options = CHECKS.options.model_validate({**Checks(min_characters=9).model_dump(), "min_sections": 1})
    async with CHECKS.open(options, Host(tmp_path, blobs=None)) as stage:  # type: ignore[arg-type]  # it lends nothing here
        with pytest.raises(QualityError, match="min_characters 9"):
            stage.execute(CTX, document("abc"))
    with pytest.raises(ValueError, match="min_charcters"):
        CHECKS.options.model_validate({"min_charcters": 9})
