"""Found passages, as the gateway shows them."""

from dataclasses import dataclass

from medkg.contracts.context import Metadata
from medkg.contracts.document import Provenance
from medkg.haystack.answering import Hit, SearchAnswer


@dataclass(frozen=True, slots=True)
class PassagePlace:
    """Where a passage stands in its source record: by path, or in a PDF by page (from 1) and box (in points)."""

    record: str
    path: str = ""
    page: int | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class ScoreShare:
    """What one kind of search gave to a passage's score: `weight / (k + rank)`."""

    leg: str
    rank: int
    score: float
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class NeighbourPassage:
    """A passage beside a hit in its document."""

    chunk_id: str
    ordinal: int
    section_path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A passage. `legs` says at which rank (from 1) which kind of search found it.

    `highlights` are offsets `[start, end)` into `text`, in Unicode code points. `also` counts further passages of the
    document in the ranking, where documents are shown once.
    """

    rank: int
    score: float
    chunk_id: str
    doc_id: str
    title: str
    source: str
    source_id: str
    section_path: tuple[str, ...]
    text: str
    provenance: PassagePlace | None
    legs: dict[str, int]
    ordinal: int
    metadata: Metadata
    highlights: tuple[tuple[int, int], ...]
    explanation: tuple[ScoreShare, ...]
    rerank_score: float | None
    neighbours: tuple[NeighbourPassage, ...]
    also: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first. `legs_missing` names what could not be made, `missing` says why; `more`: there are further
    hits behind this page."""

    query: str
    hits: list[SearchHit]
    legs_missing: tuple[str, ...]
    missing: dict[str, str]
    more: bool
    took_ms: float


def search_result(query: str, found: SearchAnswer, offset: int) -> SearchResult:
    """What was found, as it is shown; ranks go on from the page before."""
    hits = [_hit(rank, hit) for rank, hit in enumerate(found.hits, start=offset + 1)]
    return SearchResult(query, hits, found.legs_missing, found.missing, found.more, found.took_ms)


def _hit(rank: int, hit: Hit) -> SearchHit:
    return SearchHit(
        rank=rank,
        score=hit.score,
        chunk_id=hit.chunk_id,
        doc_id=hit.doc_id,
        title=hit.title,
        source=hit.source,
        source_id=hit.source_id,
        section_path=hit.section_path,
        text=hit.text,
        provenance=_place(hit.provenance),
        legs=hit.legs,
        ordinal=hit.ordinal,
        metadata=hit.metadata,
        highlights=hit.highlights,
        explanation=tuple(ScoreShare(s.leg, s.rank, s.score, s.weight, s.share) for s in hit.explanation),
        rerank_score=hit.rerank_score,
        neighbours=tuple(NeighbourPassage(n.chunk_id, n.ordinal, n.section_path, n.text) for n in hit.neighbours),
        also=hit.also,
    )


def _place(found: Provenance | None) -> PassagePlace | None:
    return PassagePlace(found.record, found.path, found.page, found.box) if found else None
