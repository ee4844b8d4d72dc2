"""Sparse expanders: term weights of passages when they are indexed, and of a query when it comes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from medkg.contracts.document import SparseVector
from medkg.haystack.impacts import IMPACTS, impacts, query_weight, terms_of
from medkg.haystack.stores import TermCounts

MAX_QUERY_TERMS = 64


class SparseExpander(Protocol):
    """``model`` names the weights and their revision; equal names promise comparable weights."""

    @property
    def model(self) -> str: ...

    async def expand(self, texts: Sequence[str], titles: Sequence[str]) -> list[SparseVector]:
        """The term weights of passages, each under its document's title.

        Raises:
            ContractError: the model gave something that is not a usable vector.
            ResourceUnavailableError: a remote model does not answer now.
        """
        ...

    def query_terms(self, query: str) -> list[str]:
        """The terms whose frequency in the index :meth:`expand_query` wants to know; none for a learned model."""
        ...

    async def expand_query(self, query: str, counts: TermCounts) -> dict[str, float]:
        """The term weights of a query. Raises what :meth:`expand` raises."""
        ...


class ImpactsExpander:
    """Corpus statistics, no model: :mod:`medkg.haystack.impacts`."""

    model = IMPACTS

    async def expand(self, texts: Sequence[str], titles: Sequence[str]) -> list[SparseVector]:
        return self.vectors(texts, titles)

    def vectors(self, texts: Sequence[str], titles: Sequence[str]) -> list[SparseVector]:
        return [impacts(text, title) for text, title in zip(texts, titles, strict=True)]

    def query_terms(self, query: str) -> list[str]:
        return list(dict.fromkeys(terms_of(query)))[:MAX_QUERY_TERMS]

    async def expand_query(self, query: str, counts: TermCounts) -> dict[str, float]:
        return {term: query_weight(counts.passages, count) for term, count in counts.by_term.items()}


ExpanderOf = Callable[[str], SparseExpander | None]


def known_expander(model: str) -> SparseExpander | None:
    """The expander that needs no model; None for the weights of any other."""
    return ImpactsExpander() if model == IMPACTS else None


def expanders_of(expanders: Sequence[SparseExpander]) -> ExpanderOf:
    """Finds among expanders the one of the model that an index names; impacts are always known."""
    by_model = {expander.model: expander for expander in expanders}
    return lambda model: by_model.get(model) or known_expander(model)
