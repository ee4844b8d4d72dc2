"""PDFs are read in processes of their own: hostile ones end in a named outcome, within limits, and take nobody down."""

import asyncio
import os
import sys
import time
import zlib
from pathlib import Path

import psutil
import pytest

from medkg.contracts.context import StageContext
from medkg.contracts.document import RawPayload
from medkg.contracts.errors import (
    ContentError,
    ContractError,
    NeedsOcrError,
    ParserKilledError,
    PayloadMalformedError,
    PayloadTooLargeError,
    PayloadUnsupportedError,
)
from medkg.contracts.stages import encode_artefact
from medkg.parse.pdf.child import Asked
from medkg.parse.pdf.pool import ParserPool, PoolLimits
from medkg.parse.pdf.stage import PdfiumParser
from medkg.runtime.blobs import open_blobs

ASKED = Asked("record", 2_000, 10_000_000)


def pdf(content: bytes, *, extra: bytes = b"", filters: bytes = b"") -> bytes:
    """A PDF of one page with this content stream."""
    head = b"<< /Length %d %s >>" % (len(content), filters)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 /MediaBox [0 0 612 792] >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R "
        b"/Resources << /Font << /F 5 0 R >> /XObject << /X 6 0 R >> >> >>",
        head + b"\nstream\n" + content + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        extra or b"<< >>",
    ]
    out = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    at = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, at)
    return bytes(out)


GOOD = pdf(b"BT /F 12 Tf 72 700 Td (Most patients with sciatica recover.) Tj ET")
ENDLESS = pdf(b"BT /F 1 Tf " + b"1 0 0 1 1 1 Tm (aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) Tj " * 200_000 + b"ET")
ITSELF = pdf(
    b"/X Do",
    extra=b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >> /Length 5 >>\n"
    b"stream\n/X Do\nendstream",
)


def bomb() -> bytes:
    """Some hundred kilobytes that come to 200 MB."""
    packer, piece = zlib.compressobj(6), b"(x) Tj " * 150_000
    packed = b"".join([*(packer.compress(piece) for _ in range(200)), packer.flush()])
    return pdf(packed, filters=b"/Filter /FlateDecode")


async def outcome(pool: ParserPool, data: bytes) -> str:
    try:
        document = await pool.read(data, ASKED)
    except ContentError as error:
        return error.code
    return f"{len(document.blocks())} blocks"


async def test_processes_are_kept_for_the_next_file() -> None:
    pool = ParserPool(PoolLimits(processes=1))
    try:
        assert await outcome(pool, GOOD) == "1 blocks"
        first = pool.pids
        assert await outcome(pool, b"%PDF-1.7 broken") == PayloadMalformedError.code
        assert await outcome(pool, GOOD) == "1 blocks"
        assert pool.pids == first
    finally:
        await pool.close()
    assert not any(psutil.pid_exists(pid) for pid in first)


async def test_a_process_is_replaced_after_so_many_files() -> None:
    pool = ParserPool(PoolLimits(processes=1, files=2))
    try:
        await outcome(pool, GOOD)
        first = pool.pids
        await outcome(pool, GOOD)
        assert pool.pids == []
        await outcome(pool, GOOD)
        assert pool.pids != first
    finally:
        await pool.close()


@pytest.mark.parametrize("name", ["bomb", "itself", "endless"])
async def test_hostile_files_end_within_their_limits_and_the_next_one_is_read(name: str) -> None:
    data = bomb() if name == "bomb" else {"itself": ITSELF, "endless": ENDLESS}[name]
    limits = PoolLimits(processes=1, memory_bytes=256 << 20, timeout_seconds=5)
    pool = ParserPool(limits)
    try:
        begun = time.monotonic()
        watching = asyncio.create_task(_largest(pool))
        came = await outcome(pool, data)
        watching.cancel()
        largest = await watching
        print(f"{name}: {came}, {largest >> 20} MiB at most, {time.monotonic() - begun:.1f} s")
        assert time.monotonic() - begun < limits.timeout_seconds + 3
        assert largest <= limits.memory_bytes
        assert came in {"parser_killed", "payload_malformed", "payload_too_large", "needs_ocr"} or came.endswith(
            "blocks"
        )
        assert await outcome(pool, GOOD) == "1 blocks"
    finally:
        await pool.close()


async def _largest(pool: ParserPool) -> int:
    largest = 0
    try:
        while True:
            for pid in pool.pids:
                try:
                    largest = max(largest, psutil.Process(pid).memory_info().rss)
                except psutil.Error:
                    continue
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return largest


@pytest.mark.skipif(sys.platform == "win32", reason="limits on memory are those of POSIX")
async def test_a_process_cannot_take_more_memory_than_it_is_given() -> None:
    """The same file, that needs more: it is not the file that decides what happens to the machine."""
    pool = ParserPool(PoolLimits(processes=1, memory_bytes=160 << 20, timeout_seconds=20))
    try:
        assert await outcome(pool, bomb()) in {"parser_killed", "payload_malformed"}
        assert await outcome(pool, GOOD) == "1 blocks"
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import time; time.sleep(60)", "not done after 1 s"),
        ("import os; os.abort()", "ended with -6"),
        ("import sys; sys.exit('out of memory')", "out of memory"),
        (r"import sys; sys.stdout.buffer.write(b'\xff\xff\xff\xff'); sys.stdout.flush(); sys.stdin.read()", "over the"),
        (r"import sys; sys.stdout.buffer.write(b'\0\0\0\2[]'); sys.stdout.flush(); sys.stdin.read()", "Expected"),
    ],
    ids=["hangs", "crashes", "gives up", "floods", "babbles"],
)
async def test_the_death_of_a_parser_is_a_failure_of_the_file_with_its_reason(script: str, message: str) -> None:
    pool = ParserPool(PoolLimits(processes=1, timeout_seconds=1), command=(sys.executable, "-c", script))
    try:
        with pytest.raises(ParserKilledError, match=message):
            await pool.read(GOOD, ASKED)
        assert pool.pids == []
    finally:
        await pool.close()


async def test_a_reader_that_is_given_up_takes_its_process_with_it() -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    pool = ParserPool(PoolLimits(processes=1, timeout_seconds=60), command=command)
    reading = asyncio.create_task(pool.read(GOOD, ASKED))
    async with asyncio.timeout(10):
        while not pool.pids:
            await asyncio.sleep(0.01)
    (pid,) = pool.pids
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert pool.pids == []
    assert not psutil.pid_exists(pid)
    await pool.close()


async def test_no_more_processes_than_allowed_run_at_once() -> None:
    pool = ParserPool(PoolLimits(processes=2))
    try:
        assert await asyncio.gather(*(outcome(pool, GOOD) for _ in range(12))) == ["1 blocks"] * 12
        assert len(pool.pids) <= 2
    finally:
        await pool.close()


def _stage(pool: ParserPool, blobs: object, **limits: int) -> PdfiumParser:
    bounds = {"max_bytes": 1_000_000, "max_pages": 100, "max_characters": 100_000} | limits
    return PdfiumParser(pool, blobs, **bounds)  # type: ignore[arg-type]  # a blob store, whatever its class


async def test_the_stage_reads_the_payload_or_the_file_that_was_downloaded_for_it() -> None:
    pool, blobs = ParserPool(PoolLimits(processes=1)), open_blobs("memory:")
    await blobs.put("files/t/ab", GOOD)
    told = {"source": "core", "source_id": "7", "doi": "10.1/x", "file_key": "files/t/ab"}
    ctx = StageContext("t", "doc", "job", told)  # type: ignore[arg-type]  # str is a scalar
    try:
        stage = _stage(pool, blobs)
        downloaded = await stage.execute(ctx, RawPayload("core", "7", "application/json", text="{}"))
        given = await stage.execute(ctx, RawPayload("core", "7", "application/pdf", data=GOOD))
        again = await stage.execute(ctx, RawPayload("core", "7", "application/pdf", data=GOOD))
    finally:
        await pool.close()
    assert (downloaded.doc_id, downloaded.source, downloaded.source_id) == ("doc", "core", "7")
    assert downloaded.identifiers == {"doi": "10.1/x"}
    assert "file_key" not in downloaded.metadata
    (block,) = downloaded.blocks()
    assert (block.text, block.provenance.page) == ("Most patients with sciatica recover.", 1)
    x0, y0, x1, y1 = block.provenance.box or (0, 0, 0, 0)
    assert (72 - 1 <= x0 <= 73, 82 <= y0 < 93 < y1 < 97, x1 > 200) == (True, True, True)
    assert encode_artefact(downloaded) == encode_artefact(given) == encode_artefact(again)


async def test_the_stage_refuses_what_is_no_pdf_too_large_or_gone() -> None:
    pool, blobs = ParserPool(PoolLimits(processes=1)), open_blobs("memory:")
    ctx = StageContext("t", "doc", "job", {"file_key": "files/t/gone"})
    try:
        stage = _stage(pool, blobs, max_bytes=2_000)
        with pytest.raises(PayloadUnsupportedError, match="no PDF"):
            await stage.execute(ctx, RawPayload("s", "1", "application/pdf", data=b"<html>paywall</html>"))
        with pytest.raises(PayloadTooLargeError, match="max_bytes"):
            await stage.execute(ctx, RawPayload("s", "1", "application/pdf", data=GOOD + b" " * 2_000))
        with pytest.raises(ContractError, match="cleaned up"):
            await stage.execute(ctx, RawPayload("s", "1", "application/json", text="{}"))
        with pytest.raises(PayloadUnsupportedError, match="DownloadStage"):
            await stage.execute(StageContext("t", "doc", "job"), RawPayload("s", "1", "text/plain", text="x"))
        with pytest.raises(PayloadTooLargeError, match="pages"):
            await _stage(pool, blobs, max_pages=0).execute(ctx, RawPayload("s", "1", "application/pdf", data=GOOD))
    finally:
        await pool.close()


@pytest.mark.corpus
async def test_every_hostile_file_of_the_corpus_ends_in_a_named_outcome(corpus: Path) -> None:
    limits = PoolLimits(processes=2, memory_bytes=512 << 20, timeout_seconds=10)
    pool = ParserPool(limits)
    stage = _stage(pool, open_blobs("memory:"), max_bytes=50_000_000)
    files = [path for folder in ("pdf/nasty", "pdf/pypdf", "bad") for path in sorted((corpus / folder).rglob("*"))]
    outcomes: dict[str, str] = {}
    watching = asyncio.create_task(_largest(pool))
    before = psutil.Process(os.getpid()).memory_info().rss
    try:
        for path in (each for each in files if each.is_file()):
            try:
                document = await stage.execute(
                    StageContext("t", "d", "j"),
                    RawPayload("s", path.name, "application/pdf", data=path.read_bytes() or b" "),
                )
            except ContentError as error:
                outcomes[path.name] = error.code
            else:
                outcomes[path.name] = "parsed"
                assert any(block.text for block in document.blocks()), f"{path.name} was passed on as empty text"
    finally:
        watching.cancel()
        largest = await watching
        await pool.close()
    counts = {code: list(outcomes.values()).count(code) for code in sorted(set(outcomes.values()))}
    print(f"{len(outcomes)} files: {counts}; parsers at most {largest >> 20} MiB")
    assert outcomes["pdfjs_scan-bad.pdf"] == NeedsOcrError.code
    assert outcomes["scanned_haystack_non_text_searchable.pdf"] == NeedsOcrError.code
    assert outcomes["imagemagick-CCITTFaxDecode.pdf"] == NeedsOcrError.code
    assert outcomes["libreoffice-writer-password.pdf"] == PayloadUnsupportedError.code
    assert (
        outcomes["pdfjs_helloworld-bad.pdf"]
        == outcomes["multicolumn.pdf"]
        == outcomes["pdfjs_rotation.pdf"]
        == "parsed"
    )
    assert largest < limits.memory_bytes
    assert psutil.Process(os.getpid()).memory_info().rss - before < 200 << 20
