"""The three kinds of search (legs) for one question on one moment of an index, each of which may be missing."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from medkg.haystack.embedding import TextKind
from medkg.haystack.expansion import ExpanderOf, known_expander
from medkg.haystack.hashing import MODEL_PREFIX, HashingEmbedder
from medkg.haystack.models import EmbedderOf
from medkg.haystack.stores import NO_FILTERS, FieldWeights, Filters, PassageView, Scored, TermCounts

LEXICAL: Final = "bm25"
SPARSE: Final = "sparse"
DENSE: Final = "dense"
LEGS: Final = (LEXICAL, DENSE, SPARSE)

_NOTHING_COUNTED: Final = TermCounts(0, MappingProxyType({}))
_HASHING_WEIGHT: Final = 0.01  # hashed words are a blurred BM25: they fill up the list and do not reorder it


class LegMissing(Exception):
    """A leg cannot be made here; the message says why, in words for the one who asked."""


@dataclass(frozen=True, slots=True)
class Models:
    """Who embeds and expands a query for an index that names a model; None from either leaves the leg out."""

    embedder_of: EmbedderOf = HashingEmbedder.of_model
    expander_of: ExpanderOf = known_expander


FIELDS: Final = FieldWeights(title=2.0, section=0.5, text=1.0)  # chosen with the weights: docs/decisions/0028


@dataclass(frozen=True, slots=True)
class Question:
    """``depth``: passages that each leg names at most."""

    text: str
    depth: int
    filters: Filters = NO_FILTERS
    fields: FieldWeights = FIELDS


Leg = Callable[[PassageView, Question, Models], Awaitable[list[Scored]]]


async def lexical_leg(view: PassageView, question: Question, models: Models) -> list[Scored]:
    """BM25 over title, section and text."""
    return await view.lexical(question.text, question.depth, filters=question.filters, weights=question.fields)


async def dense_leg(view: PassageView, question: Question, models: Models) -> list[Scored]:
    """Nearness of the vectors, by the model that the index names.

    Raises:
        LegMissing: the index has no vectors, or nobody here embeds with its model.
        MedkgError: what the embedder or the store raises.
    """
    model = view.facts.model
    if not model:
        raise LegMissing("the index holds no vectors yet")
    embedder = models.embedder_of(model)
    if embedder is None:
        raise LegMissing(f"no embedder for the index's model {model} is configured here")
    vectors = (await embedder.embed([question.text], TextKind.QUERY)).vectors
    return await view.dense(vectors[0], question.depth, filters=question.filters)


async def sparse_leg(view: PassageView, question: Question, models: Models) -> list[Scored]:
    """Dot product of term weights, by the expander that the index names. Raises as :func:`dense_leg`."""
    model = view.facts.sparse_model
    if not model:
        raise LegMissing("the index holds no term weights")
    expander = models.expander_of(model)
    if expander is None:
        raise LegMissing(f"no expander for the index's term weights {model} is configured here")
    terms = expander.query_terms(question.text)
    counts = await view.term_counts(terms) if terms else _NOTHING_COUNTED
    weights = await expander.expand_query(question.text, counts)
    return await view.sparse(weights, question.depth, filters=question.filters) if weights else []


# BM25 first: the legs of an embedded store take turns, and it needs nobody else
SEARCHES: Final[Mapping[str, Leg]] = MappingProxyType({LEXICAL: lexical_leg, SPARSE: sparse_leg, DENSE: dense_leg})


@dataclass(frozen=True, slots=True)
class LegWeights:
    """What each leg has to say in the fusion; chosen on the training queries of SciFact (docs/decisions/0028).

    ``sparse`` is a second opinion on the words that BM25 counts, not a second vote; a learned expansion deserves more.
    """

    bm25: float = 1.0
    dense: float = 1.5
    sparse: float = 0.3

    def of_model(self, model: str) -> dict[str, float]:
        """For an index with vectors of ``model``: hashed ones count next to nothing."""
        is_hashing = model.startswith(MODEL_PREFIX)
        return {LEXICAL: self.bm25, DENSE: _HASHING_WEIGHT if is_hashing else self.dense, SPARSE: self.sparse}


MODELS: Final = Models()
LEG_WEIGHTS: Final = LegWeights()
