"""What the checkout consists of, read from the files, for the tests that hold it to its rules."""

import ast
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One shipped Python file."""

    name: str  # medkg.chunk.stage
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    def imports(self) -> set[str]:
        """Full names of all modules that are imported anywhere in it, also inside functions."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
                if node.module == "medkg":  # from medkg import chunk
                    found.update(f"medkg.{alias.name}" for alias in node.names)
        return found

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


@dataclass(frozen=True)
class Package:
    """One member of the workspace: a folder of ``libs`` or ``services``."""

    folder: Path

    @property
    def name(self) -> str:
        """Its portion of the namespace, which is also the name of its folder."""
        return self.folder.name

    @property
    def module(self) -> str:
        return f"medkg.{self.name}"

    @property
    def distribution(self) -> str:
        return f"medkg-{self.name.replace('_', '-')}"

    @property
    def source(self) -> Path:
        return self.folder / "src" / "medkg" / self.name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))

    def modules(self) -> Iterator[Module]:
        for path in sorted(self.source.rglob("*.py")):
            parts = path.relative_to(self.folder / "src").with_suffix("").parts
            yield Module(".".join(parts).removesuffix(".__init__"), path)

    def __str__(self) -> str:
        return self.name


@cache
def libraries() -> tuple[Package, ...]:
    return _members("libs")


@cache
def services() -> tuple[Package, ...]:
    return _members("services")


def packages() -> tuple[Package, ...]:
    return libraries() + services()


@cache
def modules() -> tuple[Module, ...]:
    """All shipped modules."""
    return tuple(module for package in packages() for module in package.modules())


@cache
def settings() -> dict[str, Any]:
    """The ``pyproject.toml`` of the workspace."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def installed_with(package: Package, *, all_extras: bool = False) -> frozenset[str]:
    """Names of the distributions that an installation of this package alone brings, as the lock has them."""
    uv = shutil.which("uv") or str(ROOT / ".venv" / "bin" / "uv")
    command = [
        uv,
        "export",
        "--quiet",
        "--frozen",
        "--offline",
        "--no-dev",
        "--no-hashes",
        "--no-header",
        "--no-annotate",
    ]
    command += ["--package", package.distribution, *(["--all-extras"] if all_extras else [])]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    return frozenset(_distribution(line) for line in listing.splitlines())


def _distribution(line: str) -> str:
    """``-e ./libs/contracts`` is medkg-contracts; ``numpy==2.4.0 ; python_version < '3.12'`` is numpy."""
    if line.startswith("-e "):
        return Package(ROOT / line.removeprefix("-e ")).distribution
    return line.partition("==")[0].partition("[")[0].strip()


def _members(group: str) -> tuple[Package, ...]:
    return tuple(Package(manifest.parent) for manifest in sorted((ROOT / group).glob("*/pyproject.toml")))
