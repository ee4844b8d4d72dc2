"""`medkg search`: the passages that answer a question, each with its document and place."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from medkg.cli.answers import Hit
from medkg.cli.session import JsonFlag, TenantFlag, session_of
from medkg.cli.terminal import clean, count, duration, mark, snippet, terms_of

EXAMPLES = """\
[bold]Examples[/bold]
  medkg search 'epidural steroid injection for sciatica'
  medkg search 'exclusion criteria pregnancy' --limit 3 --full
  medkg search 'lumbar disc herniation' --json | jq -r '.hits[].source_id'"""

_LINES = 5  # of a passage, unless --full
_INDENT = 4
_READABLE_WIDTH = 110  # longer lines are hard to read, however wide the terminal is


def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in plain words.")],
    tenant: TenantFlag = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most so many passages.")] = 10,
    full: Annotated[bool, typer.Option("--full", help="Whole passages, not only the stretch that matches.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Search the passages: words and meaning, fused into one ranking."""
    session = session_of(ctx, as_json)
    with session.client() as client:
        answer = client.search(query, session.tenant(tenant), limit)
    if as_json:
        session.emit(answer.raw)
        return
    found = answer.value
    for leg in found.legs_missing:
        session.err.print(Text(f"the {clean(leg)} index did not answer: the ranking is without it", "yellow"))
    if not found.hits:
        session.show(Text(f"no passage of tenant {session.tenant(tenant)} answers {clean(query)!r}", "yellow"))
        return
    for hit in found.hits:
        session.show(hit_view(hit, terms_of(query), session.out.width, lines=None if full else _LINES))
        session.show()
    took = f" in {duration(found.took_ms / 1000)}" if found.took_ms is not None else ""
    session.show(Text(f"{count(len(found.hits), 'passage')}{took}", "dim"))


def hit_view(hit: Hit, terms: tuple[str, ...], width: int, *, lines: int | None = _LINES) -> RenderableType:
    """One hit: rank, title, score; where it stands; the passage with the words of the query marked.

    Of a long passage about ``lines`` lines are shown, None for all.
    """
    columns = min(width, _READABLE_WIDTH) - _INDENT
    score = f"{hit.score:.4f}"
    title = Text(clean(hit.title) or "untitled", "bold", no_wrap=True, overflow="ellipsis")
    title.truncate(max(10, columns - len(score) - 2), overflow="ellipsis")
    gap = " " * max(2, columns - title.cell_len - len(score))
    head = Text.assemble((f"{hit.rank:>2}  ", "cyan"), title, gap, (score, "green"))
    passage = clean(hit.text)
    shown = passage if lines is None else snippet(passage, terms, columns * lines)
    return Group(
        head,
        Padding(place_text(hit.source, hit.source_id, hit.section_path, hit.legs), (0, 0, 0, _INDENT)),
        Padding(mark(Text(shown), terms), (0, max(0, width - columns - _INDENT), 0, _INDENT)),
    )


def place_text(
    source: str | None, source_id: str | None, section_path: tuple[str, ...], legs: dict[str, int | None] | None = None
) -> Text:
    """``NCT01339377 · clinicaltrials · Eligibility > Inclusion``."""
    text = Text.assemble((clean(source_id), "cyan"))
    if source:
        text.append(f" · {clean(source)}", "dim")
    if section_path:
        text.append(" · " + " > ".join(clean(part) for part in section_path), "dim")
    ranks = " ".join(f"{clean(name)} {rank}" for name, rank in (legs or {}).items() if rank is not None)
    if ranks:
        text.append(f" · {ranks}", "dim")
    return text
