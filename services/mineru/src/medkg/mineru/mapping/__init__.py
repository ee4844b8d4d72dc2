"""From MinerU's output to the document model. Pure: nothing is fetched, nothing is trusted."""

from medkg.mineru.mapping.document import to_document

__all__ = ["to_document"]
