"""PDF on a machine without MinerU: the shipped pipeline `pdf-local`, from a DOI to a passage on its page."""

from itertools import pairwise
from typing import Any

import pytest
from tests.flow.test_download_flow import article, environment
from tests.integration.publisher_kit import pdf, serving

pytestmark = [pytest.mark.postgres]
__all__ = ["environment"]  # the fixture of the download flow
DOI = "10.5555/erenumab"
VISITS = range(1, 9)
PAGES = (
    (
        "Erenumab in episodic migraine",
        *(f"Methods of visit {week}: adults kept a diary of headache days for week {week}." for week in VISITS),
    ),
    (
        "Results",
        *(f"Erenumab halved monthly migraine days in {30 + week} of 100 adults by week {week}." for week in VISITS),
    ),
)


def written(*pages: tuple[str, ...]) -> bytes:
    """A PDF with these lines on its pages (ISO 32000-1, 7.5): the first line of each larger, as a heading is."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        text = f"BT 72 740 Td /F1 16 Tf 0 -24 Td ({lines[0]}) Tj /F1 10 Tf"
        text += "".join(f" 0 -14 Td ({line}) Tj" for line in lines[1:]) + " ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>".encode()
        )
        objects.append(f"<< /Length {len(text)} >> stream\n{text}\nendstream".encode())
    whole, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(whole))
        whole += f"{number} 0 obj {body.decode()} endobj\n".encode()
    rows = "".join(f"{place:010} 00000 n \n" for place in places)
    table = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}trailer << /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return whole + f"{table}startxref\n{len(whole)}\n%%EOF\n".encode()


async def test_a_pdf_is_searchable_with_page_and_box_and_nothing_waits(start_fleet: Any, environment: Any) -> None:
    async with serving() as publisher:
        environment(publisher)
        publisher.answers |= {
            f"/v2/{DOI}?email=library%40clinic.test": article(publisher, DOI, "/one.pdf"),
            "/one.pdf": pdf(written(*PAGES)),
        }
        async with start_fleet() as fleet:
            job_id = await fleet.submit({"ids": [DOI]}, source="unpaywall", pipeline="pdf-local")
            job = await fleet.ended(job_id, seconds=120)
            stages = [row.stage for row in await fleet.rows("SELECT stage FROM stage_runs ORDER BY started_at")]
            waits = await fleet.rows("SELECT kind FROM waits WHERE kind IN ('gate', 'join')")
            async with fleet.search() as search:
                found = await search.search("default", "erenumab halved monthly migraine days", limit=3)
    assert (job.state, job.completed) == ("completed", 1)
    assert waits == []
    assert {"download_pdf", "parse", "ir_validation", "index", "kg"} <= set(stages)
    best = found.hits[0]
    assert "halved monthly migraine days" in best.text
    assert best.provenance.page == 2
    assert best.provenance.box is not None
    left, top, right, bottom = best.provenance.box
    assert all(one < other for one, other in pairwise((0, left, right, 612)))
    assert 0 < min(top, bottom) < max(top, bottom) < 792


async def test_a_page_that_is_a_picture_ends_as_needs_ocr(start_fleet: Any, environment: Any) -> None:
    picture = written(("", "")).replace(
        b"BT 72 740", b"q 612 0 0 792 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID x EI Q BT 72 740"
    )
    async with serving() as publisher:
        environment(publisher)
        publisher.answers |= {
            f"/v2/{DOI}?email=library%40clinic.test": article(publisher, DOI, "/scan.pdf"),
            "/scan.pdf": pdf(picture),
        }
        async with start_fleet() as fleet:
            job = await fleet.ended(
                await fleet.submit({"ids": [DOI]}, source="unpaywall", pipeline="pdf-local"), seconds=120
            )
            (document,) = await fleet.rows("SELECT * FROM documents")
    assert (job.completed, job.rejected) == (0, 1)
    assert document.failure_code == "needs_ocr"
