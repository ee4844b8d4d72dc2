"""The index stage: a document into the search index, in place of what was there of it."""

from pathlib import Path

from medkg.contracts.context import StageContext
from medkg.contracts.document import EmbeddingBatch, IndexReceipt, WriteOutcome
from medkg.haystack.embedded_writer import EmbeddedWriter
from medkg.haystack.passage_database import DEFAULT_INDEX
from medkg.haystack.segments import TAIL_ROWS
from medkg.haystack.stores import PassageWriter
from medkg.haystack.writes import prepare


class IndexStage:
    """Writes to the index of each tenant, in whichever store ``writer`` has. Used on one event loop."""

    def __init__(self, writer: PassageWriter, index: str) -> None:
        self._writer = writer
        self._index = index

    async def execute(self, ctx: StageContext, batch: EmbeddingBatch) -> IndexReceipt:
        """Puts a document into the index, in both stores or in neither.

        Raises:
            ContractError: the batch does not hold a usable vector for each passage, or the store refuses it.
            PipelineConfigError: the index holds vectors of another model.
            ResourceUnavailableError: readers see the document as it was.
        """
        outcome = await self._writer.replace(ctx.tenant_id, prepare(ctx, batch))
        passages = 0 if outcome is WriteOutcome.SUPERSEDED else len(batch.chunks)
        return IndexReceipt(index=self._index, generation=ctx.content_key, passages=passages, outcome=outcome)

    async def aclose(self) -> None:
        """Finishes what was begun and closes the stores."""
        await self._writer.aclose()


class EmbeddedIndex(IndexStage):
    """The stage over the embedded stores in ``data_dir``."""

    def __init__(self, data_dir: Path, index: str = DEFAULT_INDEX, segment_rows: int = TAIL_ROWS) -> None:
        super().__init__(EmbeddedWriter(data_dir, index, segment_rows), index)
