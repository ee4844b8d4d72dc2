"""Writing what was extracted from a document to the knowledge graph."""

from medkg.contracts.context import StageContext
from medkg.contracts.document import Extraction, GraphWriteReceipt
from medkg.contracts.errors import ContractError
from medkg.storage.graph_writer import Generation, GraphWriter

GRAPH = "postgres"


class PostgresGraph:
    """A KGStage on PostgreSQL.

    Replaces the document's whole contribution in one transaction. Idempotent by ``ctx.content_key``, ordered by
    ``ctx.revision``: the receipt says ``unchanged`` where another job had already written the same content, and
    ``superseded`` where a later job's content stands; in both cases no row of the graph changes.
    """

    def __init__(self, writer: GraphWriter) -> None:
        self._writer = writer

    async def execute(self, ctx: StageContext, extraction: Extraction) -> GraphWriteReceipt:
        """Write, or find that there is nothing to write.

        Raises:
            ContractError: the context names no content, the extraction is of another document, or breaks a bound.
            ResourceUnavailableError: PostgreSQL does not answer; try again.
        """
        if not ctx.content_key:
            raise ContractError(f"writing document {ctx.doc_id} to the graph: the context has no content key")
        if extraction.doc_id != ctx.doc_id:
            raise ContractError(
                f"writing document {ctx.doc_id} to the graph: the extraction is of document {extraction.doc_id}"
            )
        asked = Generation(ctx.content_key, ctx.revision, ctx.correlation_id)
        outcome = await self._writer.write(ctx.tenant_id, asked, extraction)
        return GraphWriteReceipt(
            graph=GRAPH,
            generation=ctx.content_key,
            entities=len(extraction.entities),
            claims=len(extraction.claims),
            outcome=outcome,
        )
