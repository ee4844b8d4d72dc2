"""Where the stages of a topology stand when it is drawn from top to bottom: layers, order, coordinates and routes.

Layers by longest path; edges that span several layers get a place in each of them; the order within a layer by
repeated barycentres (Sugiyama, Tagawa and Toda, 1981); edges are vertical and horizontal lines, and those that would
lie on top of each other get tracks of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from medkg.contracts.topology import Topology

SWEEPS = 8  # of barycentres; small graphs settle after three or four
THREAD = 20.0  # width that an edge takes up where it passes a layer
GAP = 36.0  # between neighbours of a layer
TRACK = 14.0  # between horizontal lines of one gap between layers
ROOM = 18.0  # above the first and below the last of them

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """Centre and size of a stage."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """``routes`` are the corners of edges, (from, to) -> points, from the bottom of one box to the top of another."""

    width: float
    height: float
    boxes: Mapping[str, Box]
    routes: Mapping[tuple[str, str], tuple[Point, ...]]


def in_order(topology: Topology) -> list[str]:
    """The stages such that each comes after all it depends on; otherwise in the order of the file."""
    waiting = {name: {p for p in before if p in topology.by_name} for name, before in topology.predecessors.items()}
    order: list[str] = []
    while waiting:
        name = next((name for name, before in waiting.items() if not before), next(iter(waiting)))
        del waiting[name]
        order.append(name)
        for before in waiting.values():
            before.discard(name)
    return order


def lay_out(topology: Topology, sizes: Mapping[str, tuple[float, float]]) -> Layout:
    """Places for boxes of the given (width, height)."""
    layers, links = _layers(topology)
    _sort(layers, links)
    widths = {item: sizes[item.stage][0] if item.is_stage else THREAD for layer in layers for item in layer}
    across = _spread(layers, links, widths)
    tracks = [_tracks(layer, links, across) for layer in layers]
    boxes: dict[str, Box] = {}
    bends: dict[tuple[_Item, _Item], float] = {}
    top = 0.0
    for layer, track in zip(layers, tracks, strict=True):
        height = max((sizes[item.stage][1] for item in layer if item.is_stage), default=0.0)
        for item in layer:
            if item.is_stage:
                boxes[item.stage] = Box(across[item], top + height / 2, *sizes[item.stage])
        top += height
        for link, number in track.items():
            bends[link] = top + ROOM + number * TRACK
        count = max(track.values(), default=0) + 1
        top += 2 * ROOM + (count - 1) * TRACK
    height = max(box.y + box.height / 2 for box in boxes.values())
    width = max(across[item] + widths[item] / 2 for item in across)
    return Layout(width, height, boxes, _routes(layers, links, across, bends, boxes))


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that takes up room in a layer: a stage, or an edge to ``target`` that passes by."""

    layer: int
    stage: str
    target: str = ""

    @property
    def is_stage(self) -> bool:
        return not self.target


_Layers = list[list[_Item]]
_Links = dict[_Item, list[_Item]]  # to the next layer


def _layers(topology: Topology) -> tuple[_Layers, _Links]:
    level: dict[str, int] = {}
    for name in in_order(topology):
        level[name] = max((level[p] + 1 for p in topology.predecessors[name] if p in level), default=0)
    layers: _Layers = [[] for _ in range(max(level.values()) + 1)]
    links: _Links = {}
    for name, number in level.items():
        layers[number].append(_Item(number, name))
    for name, number in level.items():
        for after in topology.successors[name]:
            current = _Item(number, name)
            for between in range(number + 1, level[after]):
                thread = _Item(between, name, after)
                layers[between].append(thread)
                links.setdefault(current, []).append(thread)
                current = thread
            links.setdefault(current, []).append(_Item(level[after], after))
    return layers, links


def _reversed(links: _Links) -> _Links:
    back: _Links = {}
    for item, following in links.items():
        for each in following:
            back.setdefault(each, []).append(item)
    return back


def _sort(layers: _Layers, links: _Links) -> None:
    back = _reversed(links)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = back if downwards else links
        for layer in layers if downwards else reversed(layers):
            place = {item: index for other in layers for index, item in enumerate(other)}
            centre = {
                item: sum(place[n] for n in neighbours[item]) / len(neighbours[item])
                if item in neighbours
                else place[item]
                for item in layer
            }
            layer.sort(key=lambda item: centre[item])


def _spread(layers: _Layers, links: _Links, widths: Mapping[_Item, float]) -> dict[_Item, float]:
    """The centre of each item; the left edge of all is 0.

    Items that have only each other as neighbours stand in one column. Columns begin packed to the left and then move,
    one by one, to the middle of their neighbours, as far as those beside them allow.
    """
    columns = _columns(layers, links)
    to_the_right = _constraints(layers, columns, widths)
    if not _is_ordered(to_the_right):  # columns that cross each other: every item for itself
        columns = {item: (item,) for layer in layers for item in layer}
        to_the_right = _constraints(layers, columns, widths)
    to_the_left: _Constraints = {}
    for column, others in to_the_right.items():
        for other, distance in others.items():
            to_the_left.setdefault(other, {})[column] = distance
    order = _ordered(to_the_right, set(columns.values()))
    at: dict[_Column, float] = {}
    for column in order:
        at[column] = max((at[other] + gap for other, gap in to_the_left.get(column, {}).items()), default=0.0)
    neighbours = _neighbours(links, columns)
    for sweep in range(4 * SWEEPS):
        for column in reversed(order) if sweep % 2 == 0 else order:
            near = neighbours.get(column, [])
            wanted = sum(at[other] for other in near) / len(near) if near else at[column]
            low = max((at[other] + gap for other, gap in to_the_left.get(column, {}).items()), default=-inf)
            high = min((at[other] - gap for other, gap in to_the_right.get(column, {}).items()), default=inf)
            at[column] = max(min(wanted, high), low)
    left = min(at[columns[item]] - widths[item] / 2 for item in columns)
    return {item: at[column] - left for item, column in columns.items()}


_Column = tuple[_Item, ...]
_Constraints = dict[_Column, dict[_Column, float]]  # column -> those to the right of it, and how far they must be


def _columns(layers: _Layers, links: _Links) -> dict[_Item, _Column]:
    back = _reversed(links)
    columns: dict[_Item, _Column] = {}
    for layer in layers:
        for item in (each for each in layer if each not in columns):
            column = [item]
            while len(links.get(column[-1], [])) == 1 and len(back[links[column[-1]][0]]) == 1:
                column.append(links[column[-1]][0])
            columns |= dict.fromkeys(column, tuple(column))
    return columns


def _constraints(layers: _Layers, columns: Mapping[_Item, _Column], widths: Mapping[_Item, float]) -> _Constraints:
    found: _Constraints = {}
    for layer in layers:
        for left, right in pairwise(layer):
            distance = widths[left] / 2 + GAP + widths[right] / 2
            others = found.setdefault(columns[left], {})
            others[columns[right]] = max(distance, others.get(columns[right], 0.0))
    return found


def _is_ordered(to_the_right: _Constraints) -> bool:
    columns = set(to_the_right) | {other for others in to_the_right.values() for other in others}
    return len(_ordered(to_the_right, columns)) == len(columns)


def _ordered(to_the_right: _Constraints, columns: set[_Column]) -> list[_Column]:
    """From left to right; columns that stand in a circle are left out."""
    waits_for = dict.fromkeys(columns, 0)
    for others in to_the_right.values():
        for other in others:
            waits_for[other] += 1
    ready = sorted((column for column, count in waits_for.items() if count == 0), key=_first)
    for column in ready:  # grows while it is walked
        for other in to_the_right.get(column, {}):
            waits_for[other] -= 1
            if waits_for[other] == 0:
                ready.append(other)
    return ready


def _first(column: _Column) -> tuple[int, str, str]:
    return (column[0].layer, column[0].stage, column[0].target)


def _neighbours(links: _Links, columns: Mapping[_Item, _Column]) -> dict[_Column, list[_Column]]:
    found: dict[_Column, list[_Column]] = {}
    for item, following in links.items():
        for each in following:
            above, below = columns[item], columns[each]
            if above != below:
                found.setdefault(above, []).append(below)
                found.setdefault(below, []).append(above)
    return found


def _tracks(layer: list[_Item], links: _Links, across: Mapping[_Item, float]) -> dict[tuple[_Item, _Item], int]:
    """The number of the horizontal line of each link below a layer; lines of different edges do not touch."""
    found: dict[tuple[_Item, _Item], int] = {}
    pairs = [(item, each) for item in layer for each in links.get(item, [])]
    for item, each in sorted(pairs, key=lambda pair: abs(across[pair[0]] - across[pair[1]])):
        low, high = sorted((across[item], across[each]))
        taken = set()
        for (other, other_each), number in found.items():
            is_related = other == item or other_each == each
            other_low, other_high = sorted((across[other], across[other_each]))
            if not is_related and low < other_high + 1 and other_low < high + 1:
                taken.add(number)
        found[item, each] = next(number for number in range(len(taken) + 1) if number not in taken)
    return found


def _routes(
    layers: _Layers,
    links: _Links,
    across: Mapping[_Item, float],
    bends: Mapping[tuple[_Item, _Item], float],
    boxes: Mapping[str, Box],
) -> dict[tuple[str, str], tuple[Point, ...]]:
    routes: dict[tuple[str, str], tuple[Point, ...]] = {}
    for layer in layers:
        for item in (each for each in layer if each.is_stage):
            for first in links.get(item, []):
                box = boxes[item.stage]
                points: list[Point] = [(across[item], box.y + box.height / 2)]
                current, following = item, first
                while True:
                    bend = bends[current, following]
                    points += [(across[current], bend), (across[following], bend)]
                    if following.is_stage:
                        break
                    current, following = following, links[following][0]
                end = boxes[following.stage]
                points.append((across[following], end.y - end.height / 2))
                routes[item.stage, following.stage] = _straightened(points)
    return routes


def _straightened(points: list[Point]) -> tuple[Point, ...]:
    """Without corners that are none."""
    kept = [points[0]]
    for point, after in zip(points[1:], [*points[2:], None], strict=True):
        before = kept[-1]
        is_on_a_line = after is not None and (
            (abs(before[0] - point[0]) < 0.5 and abs(point[0] - after[0]) < 0.5)
            or (abs(before[1] - point[1]) < 0.5 and abs(point[1] - after[1]) < 0.5)
        )
        if not is_on_a_line:
            kept.append(point)
    return tuple(kept)
