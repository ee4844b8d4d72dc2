"""Reciprocal rank fusion: one list out of several (Cormack, Clarke and Büttcher 2009)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

RRF_K: Final = 60  # the paper's constant

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Fused(Generic[T]):
    """An item with its score ``sum(weight / (k + rank))`` and its rank (1-based) in each list that has it."""

    item: T
    score: float
    ranks: dict[str, int]


def fuse(
    legs: Mapping[str, Sequence[tuple[T, float]]], weights: Mapping[str, float], k: float = RRF_K
) -> list[Fused[T]]:
    """Best first. Each list names an item once, best first; a list without a weight counts once.

    Items of equal score (to six places) share their rank, so that the outcome does not depend on where they are stored.
    """
    ranks: dict[T, dict[str, int]] = {}
    scores: dict[T, float] = {}
    for leg, scored in legs.items():
        weight = weights.get(leg, 1.0)
        rank, share, previous = 0, 0.0, None
        for place, (item, score) in enumerate(scored, 1):
            if (rounded := round(score, 6)) != previous:
                rank, share, previous = place, weight / (k + place), rounded
            if (found := ranks.get(item)) is None:
                ranks[item], scores[item] = {leg: rank}, share
            else:
                found[leg] = rank
                scores[item] += share
    return [Fused(item, scores[item], ranks[item]) for item in sorted(scores, key=scores.__getitem__, reverse=True)]
