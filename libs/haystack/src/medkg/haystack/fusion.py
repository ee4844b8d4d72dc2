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
    for leg, scored in legs.items():
        rank, previous = 0, None
        for place, (item, score) in enumerate(scored, 1):
            if round(score, 6) != previous:
                rank, previous = place, round(score, 6)
            ranks.setdefault(item, {})[leg] = rank
    fused = [
        Fused(item, sum(weights.get(leg, 1.0) / (k + rank) for leg, rank in found.items()), found)
        for item, found in ranks.items()
    ]
    return sorted(fused, key=lambda entry: -entry.score)
