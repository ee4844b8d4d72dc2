"""`medkg graph`: an entity, what is said of it, and the passage each statement was read from."""

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from medkg.cli.answers import EntityName, Evidence, GraphClaim, GraphEntity, GraphResult
from medkg.cli.exits import NotFound
from medkg.cli.search import place_text
from medkg.cli.session import JsonFlag, TenantFlag, session_of
from medkg.cli.terminal import clean, count, short, snippet

EXAMPLES = """\
[bold]Examples[/bold]
  medkg graph 'Intervertebral Disc Displacement'
  medkg graph nct:NCT01339377 --limit 20
  medkg graph aspirin --json | jq '.claims[].evidence[0].text'"""

_CARDS, _OTHERS = 3, 10  # entities shown whole, and on one line
_EVIDENCE = 2  # passages shown for a claim
_QUOTE = 240  # characters of a passage


def graph(
    ctx: typer.Context,
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="An entity's id, its name or one of its aliases.")],
    tenant: TenantFlag = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many statements.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show an entity of the graph with the statements about it."""
    session = session_of(ctx, as_json)
    with session.client() as client:
        answer = client.graph(entity, session.tenant(tenant), limit)
    if as_json:
        session.emit(answer.raw)
    if not answer.value.entities and not answer.value.claims:
        hint = "names match from their beginning; `medkg search` looks into the text itself"
        raise NotFound(f"the graph of tenant {session.tenant(tenant)} knows no {clean(entity)!r}", hint=hint)
    if not as_json:
        session.show(graph_view(answer.value, limit))


def graph_view(found: GraphResult, limit: int) -> RenderableType:
    """Cards of the entities, then the claims by subject and predicate."""
    parts: list[RenderableType] = []
    for entity in found.entities[:_CARDS]:
        parts.extend((_card(entity), Text()))
    others = found.entities[_CARDS:]
    parts.extend(_line(entity) for entity in others[:_OTHERS])
    if len(others) > _OTHERS:
        parts.append(Text(f"and {count(len(others) - _OTHERS, 'entity', 'entities')} more", "dim"))
    if others:
        parts.append(Text())
    ours = {entity.entity_id for entity in found.entities}
    for (subject, predicate), claims in groupby(
        sorted(found.claims, key=lambda claim: _heading(claim, ours)), key=lambda claim: _heading(claim, ours)
    ):
        heading = Text(clean(predicate).replace("_", " "), "bold magenta")
        if subject:
            heading.append(f"  of {clean(subject)}", "dim")
        parts.append(heading)
        parts.extend(Padding(claim_view(claim, ours), (0, 0, 0, 2)) for claim in claims)
        parts.append(Text())
    shown = count(len(found.claims), "statement")
    more = "; there may be more: --limit" if len(found.claims) >= limit else ""
    parts.append(Text(shown + more, "dim"))
    return Group(*parts)


def claim_view(claim: GraphClaim, ours: set[str], *, passages: int = _EVIDENCE) -> RenderableType:
    """A claim seen from ``ours``: the other end of it, its qualifiers, and where it was read."""
    is_incoming = claim.subject.entity_id not in ours and claim.object is not None and claim.object.entity_id in ours
    other = claim.subject if is_incoming else claim.object
    line = Text("← " if is_incoming else "", "dim")
    line.append_text(_named(other) if other is not None else Text(clean(claim.value), "bold"))
    notes = [f"{clean(name)} {clean(value)}" for name, value in sorted(claim.qualifiers.items())]
    if claim.confidence < 1:
        notes.append(f"confidence {claim.confidence:.2f}")
    if claim.method:
        notes.append(clean(claim.method))
    line.append(f"  {' · '.join(notes)}" if notes else "", "dim")
    distinct = list({(e.doc_id, e.text, e.mentioned): e for e in claim.evidence}.values())
    read = [Padding(part, (0, 0, 0, 2)) for evidence in distinct[:passages] for part in evidence_view(evidence)]
    hidden = len(distinct) - passages
    if hidden > 0:
        read.append(Padding(Text(f"and {count(hidden, 'passage')} more", "dim"), (0, 0, 0, 2)))
    return Group(line, *read)


def evidence_view(evidence: Evidence) -> Iterator[RenderableType]:
    """The passage with the words that were read marked, and the document under it."""
    mention = clean(evidence.mentioned)
    passage = clean(evidence.text) or mention
    at = passage.find(mention) if mention else -1
    quote = Text(_around(passage, at, len(mention)) if at >= 0 else snippet(passage, (), _QUOTE), "italic")
    marked = quote.plain.find(mention) if mention else -1
    if marked >= 0:
        quote.stylize("not italic bold yellow", marked, marked + len(mention))
    yield Text.assemble(("“", "dim"), quote, ("”", "dim"))
    place = place_text(evidence.source, evidence.source_id or short(evidence.doc_id), evidence.section_path)
    title = clean(evidence.title)
    if title:
        place.append(f" · {snippet(title, (), 80)}", "dim")
    yield place


def _around(passage: str, at: int, length: int) -> str:
    """The stretch of a long passage that has the mention in it."""
    if len(passage) <= _QUOTE:
        return passage
    begin = max(0, min(at - (_QUOTE - length) // 2, at, len(passage) - _QUOTE))
    end = max(begin + _QUOTE, at + length)
    return ("… " if begin else "") + passage[begin:end].strip() + (" …" if end < len(passage) else "")


def _heading(claim: GraphClaim, ours: set[str]) -> tuple[str, str]:
    is_about_other = claim.subject.entity_id not in ours and (
        claim.object is None or claim.object.entity_id not in ours
    )
    return (claim.subject.name or claim.subject.entity_id if is_about_other else "", claim.predicate)


def _card(entity: GraphEntity) -> RenderableType:
    lines = [
        Text.assemble((clean(entity.name) or clean(entity.entity_id), "bold"), (f"  {clean(entity.type)}", "magenta"))
    ]
    facts = [("id", clean(entity.entity_id))]
    facts += [(clean(scheme), clean(value)) for scheme, value in sorted(entity.identifiers.items())]
    if entity.aliases:
        facts.append(("also", snippet(", ".join(clean(alias) for alias in entity.aliases), (), _QUOTE)))
    facts.append(("in", count(entity.documents, "document")))
    lines.extend(Text.assemble((f"  {name:<6} ", "dim"), value) for name, value in facts)
    return Group(*lines)


def _line(entity: GraphEntity) -> Text:
    return Text("also ", "dim").append_text(
        _named(EntityName(entity.entity_id, entity.type, entity.name)).append(
            f"  in {count(entity.documents, 'document')}", "not bold dim"
        )
    )


def _named(entity: EntityName) -> Text:
    name = Text(clean(entity.name) or clean(entity.entity_id), "bold")
    return name.append(f"  {clean(entity.type)} {clean(entity.entity_id)}", "not bold dim")
