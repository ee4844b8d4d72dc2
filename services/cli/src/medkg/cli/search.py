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
  medkg search 'blood pressure' --source clinicaltrials --phase 'phase 3' --year-from 2015 --explain
  medkg search 'lumbar disc herniation' --json | jq -r '.hits[].source_id'"""

_LINES = 5  # of a passage, unless --full
_INDENT = 4
_READABLE_WIDTH = 110  # longer lines are hard to read, however wide the terminal is


def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in plain words.")],
    tenant: TenantFlag = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most so many passages.")] = 10,
    offset: Annotated[int, typer.Option("--offset", min=0, max=1000, help="Leave out so many of the first.")] = 0,
    source: Annotated[list[str] | None, typer.Option("--source", help="Only from these sources; repeatable.")] = None,
    section: Annotated[
        list[str] | None, typer.Option("--section", help="Only under these headings; repeatable.")
    ] = None,
    condition: Annotated[
        list[str] | None, typer.Option("--condition", help="Only of these conditions; repeatable.")
    ] = None,
    phase: Annotated[list[str] | None, typer.Option("--phase", help="Only of these phases; repeatable.")] = None,
    year_from: Annotated[int | None, typer.Option("--year-from", min=0, max=9999, help="Not older.")] = None,
    year_to: Annotated[int | None, typer.Option("--year-to", min=0, max=9999, help="Not newer.")] = None,
    retracted: Annotated[
        bool | None, typer.Option("--retracted/--no-retracted", help="Only, or no, retracted documents.")
    ] = None,
    leg: Annotated[list[str] | None, typer.Option("--leg", help="Only bm25, dense or sparse; repeatable.")] = None,
    by_document: Annotated[bool, typer.Option("--by-document", help="Each document once.")] = False,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=0, max=5, help="Passages before and after each, too.")
    ] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="What each kind of search gave to each score.")] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="Ask the reranker of the gateway, too.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Whole passages, not only the stretch that matches.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Search the passages: words and meaning, fused into one ranking."""
    session = session_of(ctx, as_json)
    asked = {
        "offset": offset,
        "source": source,
        "section": section,
        "condition": condition,
        "phase": phase,
        "year_from": year_from,
        "year_to": year_to,
        "retracted": retracted,
        "leg": leg,
        "by_document": by_document,
        "neighbours": neighbours,
        "explain": explain,
        "rerank": rerank,
    }
    with session.client() as client:
        given = {name: value for name, value in asked.items() if value or (value is False and name == "retracted")}
        answer = client.search(query, session.tenant(tenant), limit, **given)
    if as_json:
        session.emit(answer.raw)
        return
    found = answer.value
    for missing in found.legs_missing:
        why = found.missing.get(missing, "it did not answer")
        session.err.print(Text(f"the ranking is without {clean(missing)}: {clean(why)}", "yellow"))
    if not found.hits:
        session.show(Text(f"no passage of tenant {session.tenant(tenant)} answers {clean(query)!r}", "yellow"))
        return
    for hit in found.hits:
        session.show(hit_view(hit, terms_of(query), session.out.width, lines=None if full else _LINES))
        session.show()
    took = f" in {duration(found.took_ms / 1000)}" if found.took_ms is not None else ""
    more = f"; more with --offset {offset + len(found.hits)}" if found.more else ""
    session.show(Text(f"{count(len(found.hits), 'passage')}{took}{more}", "dim"))


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
    body = Padding(mark(Text(shown), terms), (0, max(0, width - columns - _INDENT), 0, _INDENT))
    place = place_text(hit.source, hit.source_id, hit.section_path, hit.legs)
    if hit.also:
        place.append(f" · and {count(hit.also, 'passage')} more", "dim")
    before = [_beside(n.text, columns) for n in hit.neighbours if n.ordinal < hit.ordinal]
    after = [_beside(n.text, columns) for n in hit.neighbours if n.ordinal > hit.ordinal]
    return Group(head, Padding(place, (0, 0, 0, _INDENT)), *before, body, *after, *_explanation(hit))


def _beside(text: str, columns: int) -> RenderableType:
    return Padding(Text(snippet(clean(text), (), columns * 2), "dim"), (0, 0, 0, _INDENT))


def _explanation(hit: Hit) -> list[RenderableType]:
    """One line for each kind of search: its rank and score, and what that gave to the passage's score."""
    lines = [
        f"{clean(share.leg):<8} rank {share.rank:>3}  score {share.score:9.4f}  "
        f"weight {share.weight:g}  gave {share.share:.4f}"
        for share in hit.explanation
    ]
    if hit.rerank_score is not None:
        lines.append(f"rerank   score {hit.rerank_score:.4f}")
    return [Padding(Text(line, "magenta"), (0, 0, 0, _INDENT)) for line in lines]


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
