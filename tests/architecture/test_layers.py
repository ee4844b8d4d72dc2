"""Who may know whom."""

import ast
import subprocess
import sys

import pytest
from tests.architecture.workspace import ROOT, Module, modules, packages, settings


def test_the_import_contracts_hold() -> None:
    linter = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    answer = subprocess.run(
        [*linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_import_contracts_cover_every_package() -> None:
    assert set(settings()["tool"]["importlinter"]["root_packages"]) == {package.module for package in packages()}


def test_every_package_stands_in_exactly_one_layer() -> None:
    (contract,) = [c for c in settings()["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    layered = [name.strip() for layer in contract["layers"] for name in layer.split("|")]
    assert sorted(layered) == sorted(package.module for package in packages())


@pytest.mark.parametrize("library", ["asyncpg", "psycopg", "psycopg2"])
def test_only_storage_uses_a_driver_of_postgresql(library: str) -> None:
    # The linter refuses a rule about a library that nobody imports, as is the case while SQLAlchemy loads the driver.
    assert _importers(library, outside="medkg.storage") == []


@pytest.mark.parametrize("library", ["aiokafka", "kafka"])
def test_there_is_one_kafka_client(library: str) -> None:
    assert _importers(library, outside="") == []


def test_no_module_is_imported_by_a_name_that_the_linter_cannot_see() -> None:
    """Stages are found by entry point; ``import_module("medkg.chunk")`` would be an import in hiding."""
    hidden = [
        f"{module}:{call.lineno}"
        for module in modules()
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("import_module", "__import__"))
        if any(isinstance(a, ast.Constant) and str(a.value).startswith("medkg") for a in call.args)
    ]
    assert hidden == []


def _importers(library: str, *, outside: str) -> list[str]:
    def is_inside(module: Module) -> bool:
        return bool(outside) and (module.name == outside or module.name.startswith(f"{outside}."))

    return [
        str(module)
        for module in modules()
        if not is_inside(module) and any(name.partition(".")[0] == library for name in module.imports())
    ]
