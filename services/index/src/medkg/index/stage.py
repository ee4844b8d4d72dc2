"""Indexing into the embedded store: every document in one transaction, several documents in one commit."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from medkg.contracts.context import StageContext
from medkg.contracts.document import EmbeddingBatch, IndexReceipt, WriteOutcome
from medkg.contracts.errors import PipelineConfigError
from medkg.haystack.passage_store import DEFAULT_INDEX, prepare, store_path
from medkg.haystack.segments import TAIL_ROWS
from medkg.index.writer import TenantWriter

_OPEN_TENANTS: Final = 32


class EmbeddedIndex:
    """Writes to the store of each tenant. What arrives while a commit is under way goes into the next one together.

    Used on one event loop. Stores may be written by other processes at the same time.
    """

    def __init__(self, data_dir: Path, index: str = DEFAULT_INDEX, segment_rows: int = TAIL_ROWS) -> None:
        self._data_dir = data_dir
        self._index = index
        self._segment_rows = segment_rows
        self._commits = ThreadPoolExecutor(2, thread_name_prefix="index-commit")
        self._merges = ThreadPoolExecutor(1, thread_name_prefix="index-merge")
        self._tenants: OrderedDict[str, TenantWriter] = OrderedDict()

    async def execute(self, ctx: StageContext, batch: EmbeddingBatch) -> IndexReceipt:
        """Puts a document into the index, in place of what was there of it.

        Raises:
            ContractError: the batch does not hold a usable vector for each passage.
            PipelineConfigError: the index holds vectors of another model.
            ResourceUnavailableError: nothing was written.
        """
        outcome = await self._writer(ctx.tenant_id).write(prepare(ctx, batch))
        if isinstance(outcome, PipelineConfigError):
            raise outcome
        passages = 0 if outcome is WriteOutcome.SUPERSEDED else len(batch.chunks)
        return IndexReceipt(index=self._index, generation=ctx.content_key, passages=passages, outcome=outcome)

    async def aclose(self) -> None:
        """Finishes what was begun and closes the stores."""
        for writer in self._tenants.values():
            await writer.aclose()
        self._tenants.clear()
        for executor in (self._commits, self._merges):
            await asyncio.to_thread(executor.shutdown)

    def _writer(self, tenant_id: str) -> TenantWriter:
        writer = self._tenants.get(tenant_id)
        if writer is None:
            path = store_path(self._data_dir, tenant_id, self._index)
            writer = self._tenants[tenant_id] = TenantWriter(path, self._commits, self._merges, self._segment_rows)
            for idle in [name for name, other in self._tenants.items() if other.is_idle and other is not writer]:
                if len(self._tenants) <= _OPEN_TENANTS:
                    break
                self._tenants.pop(idle).close()
        self._tenants.move_to_end(tenant_id)
        return writer
