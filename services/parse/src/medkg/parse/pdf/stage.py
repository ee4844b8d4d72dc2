"""The parse stage on PDFs without a GPU: PDFium, in processes of their own."""

from medkg.contracts.context import StageContext
from medkg.contracts.document import Document, RawPayload
from medkg.contracts.errors import ContractError, PayloadTooLargeError, PayloadUnsupportedError
from medkg.contracts.implementation import Blobs
from medkg.contracts.media import PDF, essence
from medkg.contracts.pdf import FILE_KEY, adopted
from medkg.parse.pdf.child import Asked
from medkg.parse.pdf.pool import ParserPool

_MAGIC_WITHIN = 1_024  # bytes: readers look for "%PDF-" that far (ISO 32000-1, annex H.3, implementation note 13)


class PdfiumParser:
    """Parses the PDF of a payload, or the one that was downloaded for it."""

    def __init__(self, pool: ParserPool, blobs: Blobs, *, max_bytes: int, max_pages: int, max_characters: int) -> None:
        self._pool = pool
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._max_pages = max_pages
        self._max_characters = max_characters

    async def execute(self, ctx: StageContext, payload: RawPayload) -> Document:
        """The document of a PDF: in reading order, with headings, page and box of every block.

        Raises:
            NeedsOcrError: its pages are pictures. ParserKilledError: it took its parser down, or too long.
            PayloadMalformedError, PayloadUnsupportedError, PayloadTooLargeError: no PDF that can be read.
            ContractError: the file that was downloaded is gone.
            ResourceUnavailableError: the blob store does not answer.
        """
        at = f"parsing {payload.source_id}"
        data = await self._bytes_of(ctx, payload, at)
        if len(data) > self._max_bytes:
            raise PayloadTooLargeError(f"{at}: {len(data)} bytes are over the limit of {self._max_bytes} (max_bytes)")
        if b"%PDF-" not in data[:_MAGIC_WITHIN]:
            raise PayloadUnsupportedError(f"{at}: no PDF: it does not begin with %PDF-")
        asked = Asked(payload.source_id, self._max_pages, self._max_characters)
        return adopted(await self._pool.read(data, asked), ctx)

    async def _bytes_of(self, ctx: StageContext, payload: RawPayload, at: str) -> bytes:
        if payload.data:
            return payload.data
        key = ctx.metadata.get(FILE_KEY)
        if not isinstance(key, str):
            raise PayloadUnsupportedError(
                f"{at}: a record of type {essence(payload.media_type)!r} without a file; pdfium reads {PDF}: let a "
                "DownloadStage come before it"
            )
        data = await self._blobs.get(key)
        if data is None:
            raise ContractError(f"{at}: nothing is stored under {key}; was it cleaned up?")
        return data
