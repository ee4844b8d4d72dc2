"""Every service folder looks like its siblings, and every list of packages has all of them."""

import pytest
from tests.architecture.workspace import ROOT, Package, libraries, packages, services, settings

LIBRARIES_OF_THE_FLEET = {"local"}  # hosts the others; nobody starts it by itself
COMMANDS = {"cli": "medkg"}  # every other service is medkg-NAME


@pytest.mark.parametrize("package", packages(), ids=str)
def test_a_package_has_its_anatomy(package: Package) -> None:
    assert (package.source / "__init__.py").is_file()
    assert (package.source / "py.typed").is_file()
    assert package.manifest["project"]["name"] == package.distribution
    assert package.manifest["project"]["description"].endswith(".")
    assert package.manifest["project"]["license"] == "Apache-2.0"
    assert package.manifest["tool"]["uv"]["build-backend"]["module-name"] == package.module
    assert not (package.source.parent / "__init__.py").exists(), "medkg is a namespace: no package may own it"
    assert [path.name for path in package.source.parent.iterdir() if path.is_dir()] == [package.name]


@pytest.mark.parametrize("service", [s for s in services() if s.name not in LIBRARIES_OF_THE_FLEET], ids=str)
def test_a_service_can_be_started(service: Package) -> None:
    assert (service.source / "app.py").is_file()
    assert (service.source / "__main__.py").is_file()
    command = COMMANDS.get(service.name, service.distribution)
    assert service.manifest["project"]["scripts"][command] == f"{service.module}.app:main"


@pytest.mark.parametrize("service", services(), ids=str)
def test_a_service_names_its_stage_implementations_after_itself(service: Package) -> None:
    for name, target in service.manifest["project"].get("entry-points", {}).get("medkg.stages", {}).items():
        assert name.startswith(f"{service.name}.")
        assert target.startswith(f"{service.module}.app:")


@pytest.mark.parametrize("package", packages(), ids=str)
def test_a_package_is_in_every_list_of_the_workspace(package: Package) -> None:
    source = str((package.folder / "src").relative_to(ROOT))
    tools = settings()["tool"]
    assert tools["uv"]["sources"][package.distribution] == {"workspace": True}
    assert source in tools["ruff"]["src"]
    assert f"$MYPY_CONFIG_FILE_DIR/{source}" in tools["mypy"]["mypy_path"].split(":")


def test_a_library_never_needs_a_service() -> None:
    names = {service.distribution for service in services()}
    for library in libraries():
        assert not names & set(library.manifest["project"]["dependencies"])
