"""Where vectors are: a blob store that all machines share, and a cache on the local disk."""

from dataclasses import dataclass
from pathlib import Path

from medkg.haystack.vectors.cache import DEFAULT_CACHE_BYTES, SegmentCache
from medkg.haystack.vectors.folder import SegmentBlobs, VectorFolder

_CACHE = "index-cache"


@dataclass(frozen=True, slots=True)
class VectorStore:
    """Of all tenants. Index service and readers name the same blob store; caches are each machine's own."""

    blobs: SegmentBlobs
    cache: SegmentCache

    def folder(self, alias: str, model: str, dimension: int) -> VectorFolder:
        """The vectors of one model in one index; ``alias`` is its keyed name."""
        return VectorFolder(self.blobs, alias, model, dimension)


def vector_store(blobs: SegmentBlobs, data_dir: Path, cache_bytes: int = DEFAULT_CACHE_BYTES) -> VectorStore:
    """Vectors in ``blobs``, with a cache of at most ``cache_bytes`` in ``data_dir``."""
    return VectorStore(blobs, SegmentCache(data_dir / _CACHE, cache_bytes))
