"""Which topology the records of a source take when a job names none.

1. Every topology whose ``applicable_sources`` holds the source is a candidate.
2. ``auto`` gives way to any other candidate.
3. The one with the fewest sources has it, because it was written for it.
4. A draw is a fault: nobody guesses.
"""

from collections.abc import Iterable

from medkg.contracts.errors import PipelineConfigError
from medkg.contracts.topology import Topology
from medkg.contracts.topology_graph import did_you_mean

FALLBACK = "auto"


def choose(topologies: Iterable[Topology], source: str) -> Topology:
    """The topology of a source.

    Raises:
        PipelineConfigError: no topology takes the source, or several have the same claim.
    """
    known = list(topologies)
    first = _foremost(known, source)
    if not first:
        sources = sorted({each for topology in known for each in topology.applicable_sources})
        hint = did_you_mean(source, sources)
        raise PipelineConfigError(
            f"choosing a topology: none has the source {source[:80]!r} among its applicable_sources"
            + (f"; {hint}" if hint else "")
        )
    if len(first) > 1:
        raise PipelineConfigError(f"choosing a topology: {dispute(source, first)}")
    return first[0]


def disputes(topologies: Iterable[Topology]) -> dict[str, tuple[Topology, ...]]:
    """The sources that several topologies have the same claim to."""
    known = list(topologies)
    sources = sorted({source for topology in known for source in topology.applicable_sources})
    claims = {source: _foremost(known, source) for source in sources}
    return {source: tuple(first) for source, first in claims.items() if len(first) > 1}


def dispute(source: str, topologies: Iterable[Topology]) -> str:
    """A dispute in words."""
    names = sorted(topology.name for topology in topologies)
    return (
        f"{' and '.join(names)} have the same claim to the source {source!r}; "
        "take it out of the applicable_sources of all but one, or name the pipeline in the job"
    )


def _foremost(topologies: list[Topology], source: str) -> list[Topology]:
    candidates = [topology for topology in topologies if source in topology.applicable_sources]
    specific = [topology for topology in candidates if topology.name != FALLBACK] or candidates
    fewest = min((len(topology.applicable_sources) for topology in specific), default=0)
    return [topology for topology in specific if len(topology.applicable_sources) == fewest]
