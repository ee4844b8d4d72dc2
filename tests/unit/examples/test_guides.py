"""What the pages show works, and where they point to is there."""

import re
from pathlib import Path
from typing import Any

import pytest

from medkg.contracts.document import AdapterRequest
from medkg.contracts.errors import ContractError
from medkg.contracts.sources import SourceDefinition
from medkg.runtime.topologies import TopologyLoader

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*/README.md"))
NOTES = {"a": "Aspirin 100 mg", "b": "Metformin 1.5 g", "c": "Nothing"}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def inline() -> SourceDefinition:
    """The source that the guide shows."""
    shown: dict[str, Any] = {"__name__": "inline_source"}
    exec(blocks("docs/guides/sources.md", "python")[0], shown)  # the guide's own code
    source = shown["INLINE"]
    assert isinstance(source, SourceDefinition)
    return source


async def test_the_source_of_the_guide_reads_every_record_once(inline: SourceDefinition) -> None:
    read, cursor = [], ""
    async with inline.open() as adapter:
        while True:
            page = await adapter.read(AdapterRequest(inline.name, {"notes": NOTES}, cursor, limit=2))
            read += [payload.source_id for payload in page.payloads]
            assert page.total == len(NOTES)
            cursor = page.next_cursor
            if not cursor:
                break
    assert read == sorted(NOTES)


async def test_the_source_of_the_guide_refuses_what_it_does_not_know(inline: SourceDefinition) -> None:
    async with inline.open() as adapter:
        with pytest.raises(ContractError, match="selection of source 'inline'"):
            await adapter.read(AdapterRequest(inline.name, {"notes": NOTES, "folder": "/"}))


@pytest.mark.parametrize("page", ["README.md", "docs/guides/topologies.md"])
def test_every_whole_topology_on_a_page_is_valid(page: str, tmp_path: Path) -> None:
    (tmp_path / "resilience.yaml").write_text((ROOT / "topologies" / "resilience.yaml").read_text())
    names = []
    for text in blocks(page, "yaml"):
        named = re.search(r"^name: ([a-z-]+)", text, re.MULTILINE)
        if named:
            names.append(named[1])
            (tmp_path / f"{named[1]}.yaml").write_text(text)
    loader = TopologyLoader(tmp_path)
    assert names
    assert loader.problems() == ()
    assert set(loader.names()) == set(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(place), f"{target}: there is no such heading"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
