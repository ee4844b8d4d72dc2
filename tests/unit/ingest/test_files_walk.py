"""A walk stays under its roots, has one order, and can go on behind any entry."""

import os
from pathlib import Path

import pytest

from medkg.contracts.errors import ConfigurationError, SourceForbiddenError
from medkg.ingest.files.roots import Roots
from medkg.ingest.files.walk import FoundFile, RefusedEntry, Spot, Walker


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "open"
    for name in ("b/2.json", "b/1.json", "a.txt", "c/deep/er/x.xml", ".hidden/y.json", "b/.z.json", "B.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def names(walker: Walker, *paths: str, start: Spot | None = None) -> list[str]:
    return [e.name if isinstance(e, FoundFile) else f"! {e.record.code}" for e in walker.entries([*paths], start)]


def test_a_folder_is_walked_in_the_order_of_the_bytes_of_its_names(root: Path) -> None:
    assert names(Walker(Roots([root])), str(root)) == [
        "open/B.txt",
        "open/a.txt",
        "open/b/1.json",
        "open/b/2.json",
        "open/c/deep/er/x.xml",
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["open/B.txt", "open/a.txt"]),
        ("b/*", ["open/b/1.json", "open/b/2.json"]),
        ("**/*.json", ["open/b/1.json", "open/b/2.json"]),
        ("**/**/x.xml", ["open/c/deep/er/x.xml"]),
        ("c/**", ["open/c/deep/er/x.xml"]),
        ("?/[12].json", ["open/b/1.json", "open/b/2.json"]),
        ("b/.*", ["open/b/.z.json"]),
        ("[ab].txt", ["open/a.txt"]),
        ("/".join(["**"] * 1_000) + "/x.xml", ["open/c/deep/er/x.xml"]),
        ("*/" * 100 + "x", ["! source_forbidden"]),
        ("*.pdf", ["! source_gone"]),
        ("a*/../../secret.txt", ["! source_forbidden"]),
    ],
)
def test_a_pattern_finds_files_below_its_folder_and_nowhere_else(root: Path, pattern: str, found: list[str]) -> None:
    assert names(Walker(Roots([root])), f"{root}/{pattern}") == found
    assert names(Walker(Roots([root])), pattern) == found


def test_a_path_that_exists_as_it_is_written_is_no_pattern(root: Path) -> None:
    (root / "[a].txt").write_text("x")
    assert names(Walker(Roots([root])), "[a].txt") == ["open/[a].txt"]


def test_a_walk_goes_on_from_any_entry(root: Path) -> None:
    walker = Walker(Roots([root]))
    paths = [str(root), "b", "nothing-here", "*.txt"]
    whole = list(walker.entries(paths))
    assert len(whole) == 10
    for number, entry in enumerate(whole):
        assert list(Walker(Roots([root])).entries(paths, entry.spot)) == whole[number:]


def test_a_walk_goes_on_behind_an_entry_that_is_gone(root: Path) -> None:
    spot = next(e.spot for e in Walker(Roots([root])).entries([str(root)]) if getattr(e, "name", "") == "open/b/1.json")
    (root / "b/1.json").unlink()
    assert names(Walker(Roots([root])), str(root), start=spot) == ["open/b/2.json", "open/c/deep/er/x.xml"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.txt", "b/../../secret.txt", "/", "", "a.txt/../../secret.txt"]
)
def test_nothing_outside_of_the_roots_is_found(root: Path, path: str) -> None:
    entries = list(Walker(Roots([root])).entries([path or str(root.parent)]))
    assert [e.record.code for e in entries if isinstance(e, RefusedEntry)] == ["source_forbidden"]
    assert len(entries) == 1


def test_links_are_followed_to_files_within_the_roots_and_to_nothing_else(root: Path) -> None:
    (root / "b/link-in").symlink_to(root / "a.txt")
    (root / "b/link-out").symlink_to(root.parent / "secret.txt")
    (root / "b/link-folder").symlink_to(root / "c")
    (root / "b/link-loop").symlink_to(root / "b/link-loop")
    (root / "b/link-up").symlink_to(root.parent)
    walker = Walker(Roots([root]))
    found = {
        (e.spot.names[-1] if e.spot.names else ""): e.name if isinstance(e, FoundFile) else e.record.code
        for e in walker.entries([str(root / "b")])
    }
    assert found["link-in"] == "open/a.txt"
    assert found["link-out"] == found["link-folder"] == found["link-up"] == "source_forbidden"
    assert found["link-loop"] == "source_gone"


def test_a_root_behind_a_link_is_the_folder_itself(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert names(Walker(Roots([tmp_path / "alias"])), str(tmp_path / "alias" / "a.txt")) == ["open/a.txt"]


def test_a_link_out_of_the_root_that_is_named_itself_is_refused(root: Path) -> None:
    (root / "out").symlink_to(root.parent)
    assert names(Walker(Roots([root])), str(root / "out" / "secret.txt")) == ["! source_forbidden"]


def test_names_are_the_same_wherever_the_root_lies(tmp_path: Path) -> None:
    for place in ("one/corpus", "two/else/corpus"):
        (tmp_path / place / "x").mkdir(parents=True)
        (tmp_path / place / "x" / "a.txt").write_text("x")
    first, second = (Walker(Roots([tmp_path / place])) for place in ("one/corpus", "two/else/corpus"))
    assert names(first, "x") == names(second, "x") == ["corpus/x/a.txt"]


def test_two_roots_of_one_name_are_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MEDKG_INGEST_FILES_ROOTS.*'data'"):
        Roots([tmp_path / "a/data", tmp_path / "b/data"])


def test_no_roots_at_all_are_refused_with_the_variable_to_set() -> None:
    with pytest.raises(SourceForbiddenError, match="MEDKG_INGEST_FILES_ROOTS"):
        Roots([]).require_any()


def test_a_name_that_is_no_text_is_refused_by_the_bytes_it_has(root: Path) -> None:
    try:
        (root / os.fsdecode(b"bad\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    found = [e.name for e in Walker(Roots([root])).entries([str(root)]) if isinstance(e, FoundFile)]
    assert "open/bad\\xff.txt" in found


def test_folders_nested_too_deep_are_refused_where_the_bound_is(root: Path) -> None:
    deep = root / Path(*["d"] * 70)
    deep.mkdir(parents=True)
    (deep / "x.txt").write_text("x")
    assert names(Walker(Roots([root])), str(root / "d")) == ["! source_forbidden"]
