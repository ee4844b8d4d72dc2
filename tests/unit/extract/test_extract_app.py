"""How the extract stage is found, set up and opened."""

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from medkg.contracts.context import StageContext
from medkg.contracts.document import Block, Document, Provenance, Section
from medkg.contracts.errors import ConfigurationError
from medkg.contracts.implementation import Host
from medkg.contracts.stages import StageType
from medkg.extract.app import REGISTRY, RegistryOptions
from medkg.extract.dictionary import Term, format_dictionary


class NoBlobs:
    """A blob store that nothing is ever asked of."""

    async def get(self, key: str) -> bytes | None:
        raise AssertionError(key)

    async def put(self, key: str, data: bytes) -> None:
        raise AssertionError(key)


async def mentioned(options: RegistryOptions, tmp_path: Path) -> list[str]:
    text = "Migraine and the rare zebra syndrome."
    section = Section("s0", ("Body",), (Block("s0.0", text, Provenance("r")),))
    document = Document("doc-1", "files", "a.txt", "text", "A text", (section,))
    async with REGISTRY.open(options, Host(tmp_path, NoBlobs())) as stage:
        extraction = stage.execute(StageContext("default", "doc-1", "job-1"), document)
    return [claim.object_entity for claim in extraction.claims]


async def test_the_dictionary_is_packaged_none_or_a_file_with_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text(format_dictionary([Term("D999999", "condition", "Zebra Syndrome")]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert await mentioned(RegistryOptions(), tmp_path) == ["mesh:D008881"]
    assert await mentioned(RegistryOptions(dictionary="none"), tmp_path) == []
    pinned = RegistryOptions(dictionary=str(path), dictionary_sha256=digest)
    assert await mentioned(pinned, tmp_path) == ["mesh:D999999"]


async def test_a_dictionary_that_changed_on_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.tsv"
    path.write_text(format_dictionary([]))
    with pytest.raises(ConfigurationError, match="set dictionary_sha256"):
        await mentioned(RegistryOptions(dictionary=str(path), dictionary_sha256="0" * 64), tmp_path)


@pytest.mark.parametrize("given", [{"dictionary": ""}, {"dictionary_sha256": "abc"}, {"dictionry": "none"}])
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        RegistryOptions.model_validate(given)


def test_the_implementation_is_the_default_of_its_kind() -> None:
    assert (REGISTRY.stage_type, REGISTRY.name, REGISTRY.is_default) == (StageType.EXTRACT, "registry", True)
