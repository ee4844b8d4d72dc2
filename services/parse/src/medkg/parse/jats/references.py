"""The bibliography: one line a reference, with its identifiers."""

from medkg.contracts.document import BlockKind, SectionKind
from medkg.parse.builder import DocumentBuilder, flat
from medkg.parse.jats.inline import text_of
from medkg.parse.jats.tree import Child, Element, check_depth, children, name_of

_CITATIONS = frozenset(("element-citation", "mixed-citation", "nlm-citation", "citation"))
_ENDINGS = (".", ",", ";", ":", "?", "!")


def add_references(builder: DocumentBuilder, ref_list: Child, title: str, depth: int = 0) -> None:
    """Every reference of a list and of the lists within it."""
    check_depth(depth)
    builder.open_section((title,), SectionKind.REFERENCES)
    for part in children(ref_list):
        if part.name == "ref":
            attributes: dict[str, str] = {}
            text = _structured(part.element, attributes, depth)
            builder.add(text, part.at, BlockKind.REFERENCE, attributes=attributes)
        elif part.name == "ref-list":
            add_references(builder, part, title, depth + 1)
        elif part.name not in {"title", "label"}:
            builder.add(text_of(part.element), part.at)


def _structured(element: Element, attributes: dict[str, str], depth: int) -> str:
    """The fields of a reference one after the other; text between them, where there is any, is its own punctuation."""
    check_depth(depth)
    for found in element.iter("{*}pub-id"):
        scheme = found.get("pub-id-type", "")
        if scheme in {"doi", "pmid", "pmcid"}:
            attributes.setdefault(scheme, flat(text_of(found)))
    fields = [_field(part, depth + 1) for part in _forms(element)]
    return _listed(fields)


def _forms(ref: Element) -> list[Element]:
    """The parts of a reference; of one citation given in several forms, the one written out."""
    forms: list[Element] = []
    for part in ref:
        if name_of(part) == "citation-alternatives":
            citations = [form for form in part if name_of(form) in _CITATIONS]
            written = [form for form in citations if name_of(form) == "mixed-citation"]
            forms.extend((written or citations)[:1])
        elif name_of(part):
            forms.append(part)
    return forms


def _field(element: Element, depth: int) -> str:
    check_depth(depth)
    parts = [part for part in element if name_of(part)]
    is_mixed = bool((element.text or "").strip()) or any((part.tail or "").strip() for part in element)
    if is_mixed or not parts:
        return flat(text_of(element))
    name = name_of(element)
    fields = [_field(part, depth + 1) for part in parts]
    return " ".join(filter(None, fields)) if name in {"name", "string-name"} else _listed(fields)


def _listed(fields: list[str]) -> str:
    line = ""
    for text in filter(None, fields):
        line += (" " if line.endswith(_ENDINGS) else ", " if line else "") + text
    return line
