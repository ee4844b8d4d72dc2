"""What a search is asked, and what it answers."""

from dataclasses import dataclass, field
from typing import Final

from medkg.contracts.context import Metadata
from medkg.contracts.document import Provenance
from medkg.haystack.highlighting import Span
from medkg.haystack.legs import LEGS
from medkg.haystack.stores import NO_FILTERS, Filters, Passage

MAX_LIMIT: Final = 200
MAX_OFFSET: Final = 1_000


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One question. Pages (``offset``, ``limit``) are cut from one and the same ranking.

    ``by_document`` shows each document once, by its best passage. ``neighbours`` passages before and after each hit
    come with it. ``legs`` are the kinds of search to make.
    """

    query: str
    limit: int = 10
    offset: int = 0
    filters: Filters = NO_FILTERS
    legs: tuple[str, ...] = LEGS
    by_document: bool = False
    neighbours: int = 0
    explain: bool = False
    rerank: bool = False


@dataclass(frozen=True, slots=True)
class LegShare:
    """What one leg gave to a passage's score: ``weight / (k + rank)``. ``score`` is the leg's own."""

    leg: str
    rank: int
    score: float
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A passage beside a hit in its document."""

    chunk_id: str
    ordinal: int
    section_path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found. ``legs`` says at which rank (1-based) by which kind of search.

    ``highlights`` are offsets into ``text``; ``explanation`` is empty unless asked for; ``also`` counts the further
    passages of the same document in the ranking, where documents are shown once.
    """

    chunk_id: str
    doc_id: str
    title: str
    source: str
    source_id: str
    section_path: tuple[str, ...]
    text: str
    provenance: Provenance | None
    score: float
    legs: dict[str, int]
    ordinal: int = 0
    metadata: Metadata = field(default_factory=dict)
    highlights: tuple[Span, ...] = ()
    explanation: tuple[LegShare, ...] = ()
    rerank_score: float | None = None
    neighbours: tuple[Neighbour, ...] = ()
    also: int = 0
    ref: str = field(default="", compare=False)  # the store's own, of one moment: it means nothing outside


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Hits, best first. ``legs_missing`` names what was asked for and could not be made, ``missing`` says why.

    ``more``: there are further hits behind this page.
    """

    hits: tuple[Hit, ...]
    legs_missing: tuple[str, ...]
    took_ms: float
    missing: dict[str, str] = field(default_factory=dict)
    more: bool = False


def neighbour_of(passage: Passage) -> Neighbour:
    """A passage as one beside a hit."""
    chunk = passage.chunk
    return Neighbour(chunk.chunk_id, chunk.ordinal, chunk.section_path, chunk.text)
