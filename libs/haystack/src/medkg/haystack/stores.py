"""What a search store is: the interface that the embedded store and OpenSearch both keep.

Writers see :class:`PassageWriter`, readers :class:`PassageIndex` and, for the length of one question,
:class:`PassageView`: a frozen moment, in which a document is either there with all its passages, words, term weights
and vectors, or not at all. A document is made visible by one atomic step; its order is that of
:func:`medkg.haystack.writes.decide`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medkg.contracts.document import Chunk, WriteOutcome
from medkg.haystack.writes import DocumentWrite, Stored

MAX_K: Final = 10_000  # passages that one kind of search may name
MAX_NEIGHBOURS: Final = 10


class Scored(NamedTuple):
    """A passage and how well it answers. ``ref`` is opaque and means something only to the view that gave it."""

    ref: str
    score: float


@dataclass(frozen=True, slots=True)
class Filters:
    """What passages must be like; every condition that is given must hold, one of its values is enough.

    ``sections`` are headings: one of a passage's section path must be equal, letter case aside. ``conditions`` and
    ``phases`` are compared letter case aside with the values that the document's metadata holds. ``retracted`` False
    leaves retracted documents out. A document that does not say a year has none.
    """

    sources: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    sections: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    retracted: bool | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for at all."""
        return self != NO_FILTERS


NO_FILTERS: Final = Filters()


@dataclass(frozen=True, slots=True)
class FieldWeights:
    """How much a word counts in each of the three fields; 0 leaves a field out."""

    title: float = 1.0
    section: float = 0.5
    text: float = 1.0


FIELD_WEIGHTS: Final = FieldWeights()


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What an index holds. ``model`` and ``sparse_model`` are empty, ``dimension`` is 0, while it has none.

    Vectors and term weights of another model must not be searched for in it.
    """

    model: str
    dimension: int
    sparse_model: str


@dataclass(frozen=True, slots=True)
class TermCounts:
    """``by_term``: in how many of an index's ``passages`` a term has a weight, for the terms that are in any."""

    passages: int
    by_term: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as it was given to the store (title and text in its chunk), and the generation it belongs to."""

    ref: str
    chunk: Chunk
    generation: str


class PassageView(Protocol):
    """One moment of one tenant's index. Its searches may run at the same time; each names a passage once, best first.

    All raise ResourceUnavailableError where the store cannot be read now.
    """

    @property
    def facts(self) -> IndexFacts: ...

    async def lexical(
        self, query: str, k: int, *, filters: Filters = NO_FILTERS, weights: FieldWeights = FIELD_WEIGHTS
    ) -> list[Scored]:
        """BM25 over title, section and text; any text is a valid query, and none of it is read as syntax."""
        ...

    async def term_counts(self, terms: Sequence[str]) -> TermCounts:
        """How frequent terms are (about, in a large index)."""
        ...

    async def sparse(self, weights: Mapping[str, float], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        """The dot product of the query's and the passages' term weights. Weights that are not positive are left out.

        Of very many terms or very frequent ones those with the least to say may be left out.
        """
        ...

    async def dense(self, vector: NDArray[np.floating], k: int, *, filters: Filters = NO_FILTERS) -> list[Scored]:
        """The inner product with ``vector``, of unit length, as the stored vectors are.

        Exact in a small index; in a large one approximate, with a recall@10 of at least 0.95.

        Raises:
            ContractError: ``vector`` has another dimension than the index.
        """
        ...

    async def passages(self, refs: Sequence[str]) -> dict[str, Passage]:
        """The passages by ``ref``."""
        ...

    async def neighbours(self, doc_id: str, ordinal: int, before: int, after: int) -> list[Passage]:
        """Up to ``before`` passages before and ``after`` after the one at ``ordinal``, it included, in reading order.

        ``before`` and ``after`` are at most :data:`MAX_NEIGHBOURS`.
        """
        ...


class PassageIndex(Protocol):
    """The read side of an index, of all tenants."""

    def view(self, tenant_id: str) -> AbstractAsyncContextManager[PassageView | None]:
        """What the tenant's index holds now; None where the tenant has none.

        Raises:
            ConfigurationError: the tenant id is empty, or the index was made by another version of medkg.
            ResourceUnavailableError: the store does not answer.
        """
        ...

    async def aclose(self) -> None: ...


class PassageWriter(Protocol):
    """The write side of an index, of all tenants. Idempotent; any number of writers in any processes."""

    async def replace(self, tenant_id: str, write: DocumentWrite) -> WriteOutcome:
        """Puts a document's passages in place of those it had, in all stores or in none. Returns once that is durable.

        Raises:
            PipelineConfigError: the index holds vectors of another model.
            ResourceUnavailableError: the store did not take it; readers see the document as it was, and the same
                call again finishes it.
            ContractError: the store refuses what is in it, and would again.
        """
        ...

    async def delete(self, tenant_id: str, doc_id: str, *, revision: int, job: str) -> WriteOutcome:
        """Takes a document out; a later write of a lower revision changes nothing."""
        ...

    async def stored(self, tenant_id: str, doc_id: str) -> Stored | None:
        """The visible generation of a document and what ordered it there; None where it never was."""
        ...

    async def aclose(self) -> None:
        """Finishes what was begun."""
        ...
