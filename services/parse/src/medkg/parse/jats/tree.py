"""Reading XML that nobody vouches for, and walking it with the XPath of every element."""

from collections import Counter
from collections.abc import Iterator
from html.entities import html5
from typing import NamedTuple

from lxml import etree

from medkg.contracts.errors import PayloadMalformedError, PayloadTooLargeError, PayloadUnsupportedError

MAX_DEPTH = 120  # of what is walked; articles stay under 40
_MAX_TAGS = 4_000_000  # a node of the tree takes about 150 bytes

Element = etree._Element


class Child(NamedTuple):
    """An element, its name without a namespace, and its absolute XPath."""

    element: Element
    name: str
    at: str


def read_xml(text: str, at: str) -> Element:
    """The root of a document. No network, no DTD, no entity is read or expanded.

    Raises:
        PayloadUnsupportedError: it declares entities.
        PayloadTooLargeError: too many elements. PayloadMalformedError: not well-formed, or nested too deep for libxml2.
    """
    if "<!ENTITY" in text:
        raise PayloadUnsupportedError(f"{at}: it declares entities, which are not expanded here; write them out")
    if text.count("<") > _MAX_TAGS:
        raise PayloadTooLargeError(f"{at}: more than {_MAX_TAGS} tags; split the document")
    parser = etree.XMLParser(
        encoding="utf-8",  # the text is decoded already: whatever it declares does not hold any more
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        resolve_entities=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError, ValueError) as error:
        raise PayloadMalformedError(f"{at}: not well-formed XML: {error}") from error
    if root is None:
        raise PayloadMalformedError(f"{at}: not well-formed XML: it has no element")
    return root


def name_of(element: Element) -> str:
    """The local name; empty for what is no element."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def root_of(element: Element) -> Child:
    name = name_of(element)
    return Child(element, name, f"/{name}" if element.tag == name else "/*")


def children(parent: Child, *, with_entities: bool = False) -> Iterator[Child]:
    """The elements below an element. The path of one in a namespace counts it among all (``*[3]``), so that it resolves
    without knowing prefixes. An entity, where it is asked for, has no name."""
    seen: Counter[str] = Counter()
    position = 0
    for element in parent.element:
        name = name_of(element)
        if name:
            position += 1
            seen[element.tag] += 1
            step = f"{name}[{seen[element.tag]}]" if element.tag == name else f"*[{position}]"
            yield Child(element, name, f"{parent.at}/{step}")
        elif with_entities:
            yield Child(element, "", parent.at)


def child(parent: Child, *names: str) -> Child | None:
    """The first element down a chain of names."""
    found: Child | None = parent
    for name in names:
        found = next((c for c in children(found) if c.name == name), None) if found is not None else None
    return found


def entity_text(element: Element) -> str:
    """What an undeclared entity stands for by the names of HTML (``&alpha;``), which cover those of the JATS DTD."""
    name = getattr(element, "name", None) or ""
    return html5.get(f"{name};", f"&{name};") if name else ""


def check_depth(depth: int) -> None:
    """Raises PayloadTooLargeError past ``MAX_DEPTH``."""
    if depth > MAX_DEPTH:
        raise PayloadTooLargeError(f"parsing an article: XML nested deeper than {MAX_DEPTH} elements")
