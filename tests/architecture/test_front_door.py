"""The Makefile offers what the pages promise, and says what each thing costs."""

import re
import subprocess

import pytest
from tests.architecture.workspace import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROMISED = {"help", "install", "demo", "test", "test-unit", "test-flow", "test-kafka", "test-corpus"}
PROMISED |= {"check", "format", "coverage", "docs", "kafka", "postgres", "clean"}


def test_help_lists_every_target_with_its_time() -> None:
    listing = _make("help")
    for target in _targets():
        assert re.search(rf"^  {target} .*\(.*\d+ (s|min).*\)$", listing, re.MULTILINE), (
            f"{target}: no line, or no time"
        )


def test_every_promised_target_is_there() -> None:
    assert _targets() >= PROMISED


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=lambda page: page.name)
def test_every_make_command_on_a_page_is_a_target(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    in_code = re.findall(r"`([^`\n]+)`", text) + [
        line for block in re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]
    named = {name for code in in_code for name in re.findall(r"(?:^|[;&|$] *)make ([a-z][a-z-]*)", code.strip())}
    assert named <= _targets()


def test_every_target_can_be_planned() -> None:
    """A prerequisite that nothing makes would show here."""
    for target in sorted(_targets() - {"help"}):
        _make("--dry-run", target)


def _targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    return set(phony.replace("\\\n", " ").split())


def _make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
