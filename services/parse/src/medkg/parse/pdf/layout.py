"""From the runs of a page to its lines in reading order: columns one after the other, what spans them in between.

A page is cut into bands from top to bottom. A line that crosses the white between columns (the gutter) belongs to a
band of its own kind, which is read from left to right; lines between two such bands are read column by column. Columns
of a column are found the same way.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from medkg.parse.pdf.page import Box, Line, Page, Run

_MAX_COLUMNS_DEEP = 3  # two cuts make up to four columns
_MIN_LINES = 8  # fewer lines show no columns
_CROSSED_SHARE = 0.25  # of the height of all lines may cross a gutter: titles, wide tables
_CROSSED_IN_BANDS = 0.12
_BAND_GAP = 5.0  # points of white between two bands; between two lines of a paragraph there is less
_MAX_BANDS = 40
_BIN = 2.0  # points: how finely a gutter is looked for
_MAX_BINS = 10_000
_PROSE_CHARACTERS = 14  # in half of the lines of a column of text
_SIDE_SHARE = 0.15  # of it must stand on either side
_SAME_LINE = 0.5  # of the lower one's height two runs must share to stand on one line


def reading_order(page: Page) -> list[list[Line]]:
    """The lines of a page in reading order, in groups that are read without a break: the columns of its bands."""
    lines = [line for line in lines_of(page) if line.text]
    rules = [rule for rule in page.rules if rule[2] - rule[0] > 0.3 * page.width]
    return _ordered(lines, rules, page, 0)


def lines_of(page: Page) -> list[Line]:
    """Runs joined to lines. Runs on one baseline stay apart where there is room for more than a space between them.

    Superscripts and other small runs belong to the line that they stand beside.
    """
    lines: list[Line] = []
    for run in page.runs:
        if run.text.strip():
            last = lines[-1] if lines else None
            if last is not None and _continues(last, run):
                last.runs.append(run)
            else:
                lines.append(Line([run], page.number))
    return _joined(lines)


def _continues(line: Line, run: Run) -> bool:
    """Whether a run that comes next in the content of the page goes on where a line has ended."""
    before = line.runs[-1]
    gap = run.x0 - line.x1
    height = max(before.style.size, run.style.size, 1.0)
    return -1.3 * height < gap < 1.0 * height and _on_one_line(line.runs[-1].box, run.box, line.box)


def _on_one_line(first: Box, second: Box, whole: Box) -> bool:
    shared = max(
        min(first[3], second[3]) - max(first[1], second[1]), min(whole[3], second[3]) - max(whole[1], second[1])
    )
    return shared >= _SAME_LINE * min(max(first[3] - first[1], 1.0), max(second[3] - second[1], 1.0))


def _joined(lines: list[Line]) -> list[Line]:
    """Lines whose parts the page draws out of order: neighbours on one baseline, hardly a space apart."""
    lines = sorted(lines, key=lambda line: (line.runs[0].baseline, line.x0))
    joined: list[Line] = []
    for line in lines:
        match = next(
            (
                other
                for other in reversed(joined[-12:])
                if _touch(other, line) and _on_one_line(other.box, line.box, other.box)
            ),
            None,
        )
        if match is None:
            joined.append(line)
        else:
            match.runs = sorted([*match.runs, *line.runs], key=lambda run: run.x0)
    return joined


def _touch(first: Line, second: Line) -> bool:
    gap = max(first.x0, second.x0) - min(first.x1, second.x1)
    return -1.0 < gap < 0.6 * min(first.runs[0].style.size, second.runs[0].style.size)


def _ordered(lines: list[Line], rules: Sequence[Box], page: Page, depth: int) -> list[list[Line]]:
    gutter = find_gutter(lines) if depth < _MAX_COLUMNS_DEEP else None
    if gutter is not None:
        return _columns(lines, rules, page, depth, gutter)
    if depth == 0:
        return _bands(lines, rules, page)
    return [_rows(lines)] if lines else []


def _ends_wide(above: Line, line: Line, lines: Sequence[Line], gutter: float) -> bool:
    """Whether this is the short last line of a paragraph that spans the columns."""
    size = line.style.size
    return (
        line.page == above.page
        and above.x1 > gutter + 1 > above.x0
        and abs(line.x0 - above.x0) < 2
        and abs(size - above.style.size) < 0.3
        and 0 < line.runs[0].baseline - above.runs[0].baseline < 1.4 * size
        and not any(
            abs(other.runs[0].baseline - line.runs[0].baseline) < 2 and other.x0 > gutter - 1 for other in lines
        )
    )


def _bands(lines: list[Line], rules: Sequence[Box], page: Page) -> list[list[Line]]:
    """A page that has no columns as a whole, in bands between white that goes right across.

    Bands that have columns together are read together, as many as possible: an abstract beside its keywords above a
    body of two columns.
    """
    bands: list[list[Line]] = []
    lowest = float("-inf")
    for line in sorted(lines, key=lambda line: line.top):
        if (bands and line.top - lowest < _BAND_GAP) or len(bands) >= _MAX_BANDS:
            bands[-1].append(line)
        else:
            bands.append([line])
        lowest = max(lowest, line.bottom)
    groups: list[list[Line]] = []
    plain: list[Line] = []
    at = 0
    while at < len(bands):
        together, gutter, following = _most_together(bands, at)
        if gutter is None:
            plain += bands[at]
            at += 1
            continue
        if plain:
            groups.append(_rows(plain))
            plain = []
        groups += _columns(together, rules, page, 1, gutter)
        at = following
    if plain:
        groups.append(_rows(plain))
    return groups


def _most_together(bands: list[list[Line]], first: int) -> tuple[list[Line], float | None, int]:
    """From band ``first`` on, as many bands as have columns together; with their gutter and the band after them."""
    for end in range(len(bands), first, -1):
        together = [line for band in bands[first:end] for line in band]
        gutter = find_gutter(together, _CROSSED_IN_BANDS)
        if gutter is not None and _is_in_columns(bands[first], gutter):
            return together, gutter, end
    return bands[first], None, first + 1


def _is_in_columns(lines: Sequence[Line], gutter: float) -> bool:
    """Whether this band itself is cut by the gutter: one that only crosses it stands before the columns."""
    return any(line.x0 >= gutter - 1 for line in lines) and any(line.x1 <= gutter + 1 for line in lines)


def _columns(lines: list[Line], rules: Sequence[Box], page: Page, depth: int, gutter: float) -> list[list[Line]]:
    tables = _wide_tables(lines, rules, gutter)
    groups: list[list[Line]] = []
    left: list[Line] = []
    right: list[Line] = []
    wide: list[Line] = []

    def close_columns() -> None:
        for column in (left, right):
            if column:
                groups.extend(_ordered(list(column), rules, page, depth + 1))
                column.clear()

    def close_wide() -> None:
        if wide:
            groups.append(_rows(list(wide)))
            wide.clear()

    for line in sorted(lines, key=lambda line: (line.top, line.x0)):
        is_wide = line.x0 < gutter - 1 and line.x1 > gutter + 1
        if is_wide or _within(line, tables) or (wide and _ends_wide(wide[-1], line, lines, gutter)):
            close_columns()
            wide.append(line)
        else:
            close_wide()
            (left if line.x1 <= gutter + 1 else right).append(line)
    close_columns()
    close_wide()
    return groups


def find_gutter(lines: Sequence[Line], crossed_share: float = _CROSSED_SHARE) -> float | None:
    """The x of the white between two columns of these lines; None where they are one column.

    That is where the fewest lines cross, with enough prose on either side; its right edge, where the column begins.
    """
    if len(lines) < _MIN_LINES:
        return None
    left, right = min(line.x0 for line in lines), max(line.x1 for line in lines)
    bins = int((right - left) / _BIN) + 1
    if bins > _MAX_BINS:
        return None
    begins, ends, steps = [0.0] * (bins + 1), [0.0] * (bins + 1), [0.0] * (bins + 2)
    for line in lines:
        height = line.bottom - line.top
        first, last = int((line.x0 - left) / _BIN), int((line.x1 - left) / _BIN)
        begins[first] += height
        ends[last] += height
        steps[first + 1] += height
        steps[last] -= height
    whole = sum(begins)
    best: tuple[float, float, int] | None = None
    before = crossing = 0.0
    after = whole
    for at in range(bins):
        crossing = max(crossing + steps[at], 0.0)
        after -= begins[at - 1] if at else 0.0
        before += ends[at - 1] if at else 0.0
        if crossing <= crossed_share * whole and min(before, after) >= _SIDE_SHARE * whole:
            candidate = (round(crossing, 1), -min(before, after), -at)
            best = candidate if best is None or candidate < best else best
    if best is None:
        return None
    gutter = left - best[2] * _BIN
    return gutter if _has_prose_on_both_sides(lines, gutter) else None


def _has_prose_on_both_sides(lines: Sequence[Line], gutter: float) -> bool:
    """The columns of a table are no columns of text: what stands in them is short."""
    before = [len(line.text) for line in lines if line.x1 <= gutter + 1]
    after = [len(line.text) for line in lines if line.x0 >= gutter - 1]
    return bool(before and after) and min(median(before), median(after)) >= _PROSE_CHARACTERS


def _wide_tables(lines: Sequence[Line], rules: Sequence[Box], gutter: float) -> list[tuple[float, float]]:
    """Where (from y to y) tables stand that span the gutter: between rules that cross it, close to each other.

    Between two rules there must be something that is no prose: rows of several short pieces.
    """
    ys = sorted({round(rule[1], 1) for rule in rules if rule[0] < gutter - 5 and rule[2] > gutter + 5})
    found: list[tuple[float, float]] = []
    for top, bottom in pairwise(ys):
        inside = [line for line in lines if top - 1 <= line.top and line.bottom <= bottom + 3]
        if inside and _is_tabular(inside, gutter):
            found.append((top - 1, bottom + 3))
    return found


def _is_tabular(lines: Sequence[Line], gutter: float) -> bool:
    rows: dict[int, int] = {}
    for line in lines:
        rows[round(line.runs[0].baseline / 3)] = rows.get(round(line.runs[0].baseline / 3), 0) + 1
    several = sum(1 for count in rows.values() if count >= 3)
    return several >= max(1, len(rows) // 3) or (len(rows) <= 3 and max(rows.values()) >= 2)


def _within(line: Line, bands: Sequence[tuple[float, float]]) -> bool:
    at = bisect_right(bands, (line.top, float("inf"))) - 1
    return at >= 0 and line.bottom <= bands[at][1]


def _rows(lines: list[Line]) -> list[Line]:
    """From top to bottom; pieces that share a baseline from left to right."""
    lines = sorted(lines, key=lambda line: (line.runs[0].baseline, line.x0))
    rows: list[list[Line]] = []
    for line in lines:
        height = max(line.style.size, 1.0)
        if rows and abs(rows[-1][0].runs[0].baseline - line.runs[0].baseline) < 0.4 * height:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.x0)]
