"""Following a block's provenance back into its record: does it lead to text that holds the block's?"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lxml import etree

from medkg.contracts.document import Block, BlockKind, Document, RawPayload

_MARKS = re.compile(r"[\W_]+")
_TOKENS = re.compile(r"[^\W_]+")


def bare(text: str) -> str:
    """Letters and digits alone, without case: what is left when layout and markup are taken away."""
    return _MARKS.sub("", text).casefold()


def lost_blocks(document: Document, payload: RawPayload, *, is_ordered: bool = True) -> list[str]:
    """The blocks whose provenance leads nowhere, or to text that does not hold theirs.

    Without ``is_ordered`` (elements where no schema allows them: a title amid its text) the letters alone are compared.
    """
    source = _source_of(payload, is_ordered=is_ordered)
    return [
        f"{block.block_id} at {block.provenance.path}: {block.text[:80]!r}"
        for block in document.blocks()
        if block.provenance.record != payload.source_id or not source(block)
    ]


def _source_of(payload: RawPayload, *, is_ordered: bool) -> Any:
    if payload.text.lstrip()[:1] == "<":
        parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, remove_comments=True, remove_pis=True)
        root = etree.fromstring(payload.text.encode(), parser)
        return lambda block: _in_xml(root, block, is_ordered=is_ordered)
    if payload.text.lstrip()[:1] == "{":
        record = json.loads(payload.text)
        return lambda block: _in_json(record, block)
    return lambda block: _in_text(payload.text, block)


def _in_xml(root: Any, block: Block, *, is_ordered: bool) -> bool:
    found = root.xpath(block.provenance.path)
    if len(found) != 1:
        return False
    source, text = bare("".join(found[0].itertext())), bare(block.text)
    if text in source or (not is_ordered and Counter(text) <= Counter(source)):
        return True
    # Where one of several forms of the same thing was chosen, the text is the source with gaps.
    has_gaps = next(found[0].iter("{*}alternatives", "{*}semantics", "{*}graphic", "{*}tex-math"), None) is not None
    letters = iter(source)
    return has_gaps and all(letter in letters for letter in text)


def _in_text(text: str, block: Block) -> bool:
    found = re.fullmatch(r"char=(\d+),(\d+)", block.provenance.path)
    return found is not None and bare(text[int(found[1]) : int(found[2])]) == bare(block.text)


def _in_json(record: Any, block: Block) -> bool:
    value = record
    for part in block.provenance.path.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, ValueError, TypeError):
            return False
    if not isinstance(value, dict | list):
        return bare(block.text) in bare(str(value))
    # A table or a place is put together from many values: each of its words is one of theirs.
    known = {token for text in _scalars(value) for token in _words(text)}
    rows = block.rows[block.header_rows :] if block.kind is BlockKind.TABLE else ((block.text,),)
    return all(token in known for row in rows for cell in row for token in _words(cell))


def _words(text: str) -> list[str]:
    return [token.casefold() for token in _TOKENS.findall(text)]


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _scalars(inner)
    else:
        yield str(value)
