"""Haystack components behind the medkg stage Protocols, and the search stores.

``from medkg.haystack import hybrid_retriever`` gives the retrieval of medkg as a Haystack pipeline.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medkg.haystack.hybrid import hybrid_retriever as hybrid_retriever

# Haystack reports usage over the network unless told otherwise before its first import.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


def __getattr__(name: str) -> object:
    """Haystack costs 40 MB: only where its pipeline is asked for."""
    if name == "hybrid_retriever":
        from medkg.haystack.hybrid import hybrid_retriever

        return hybrid_retriever
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
