"""The generated reference agrees with the code, and the schemas with what is encoded by them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medkg.contracts import errors
from medkg.contracts.stages import StageType

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("medkg_docs_generate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_names_what_would_change_and_changes_nothing(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    (tmp_path / "errors.md").write_text("old", encoding="utf-8")
    (tmp_path / "schemas" / "gone.json").write_text("{}", encoding="utf-8")
    (tmp_path / "topics.md").unlink()

    assert generate.main(["--check"], tmp_path) == 1
    told = capsys.readouterr().out
    assert f"{tmp_path / 'errors.md'}: is out of date" in told
    assert f"{tmp_path / 'schemas' / 'gone.json'}: belongs to no generator" in told
    assert f"{tmp_path / 'topics.md'}: is out of date" in told
    assert (tmp_path / "errors.md").read_text(encoding="utf-8") == "old"

    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    assert not (tmp_path / "schemas" / "gone.json").exists()


def test_every_error_and_every_topic_is_listed(generate: ModuleType) -> None:
    table = generate.error_table()["errors.md"]
    own = [error for error in errors.all_errors() if error.__module__ == errors.__name__]
    assert all(f"`{error.code}`" in table and f"`{error.__name__}`" in table for error in own)
    assert len({error.code for error in own}) == len(own)

    page = generate.topic_table()["topics.md"]
    assert all(f"`{kind.topic}`" in page for kind in StageType)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = [line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line]
    own = [error.__name__ for error in errors.all_errors() if error.__module__ == errors.__name__]
    assert ["MedkgError", *drawn] == own
    for line in (errors.__doc__ or "").splitlines():
        if "── " in line:
            error = getattr(errors, line.split("── ")[1].split()[0])
            assert line.split()[-1] == error.code
            assert ("(retry)" in line) is error.retryable


def test_schemas_are_json_schemas_with_the_names_that_events_carry(generate: ModuleType) -> None:
    for name, text in generate.schemas().items():
        schema = json.loads(text)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == f"urn:medkg:schema:{Path(name).stem}:v1"
    topology = json.loads(generate.schemas()["schemas/topology.json"])
    assert topology["additionalProperties"] is False
    assert "with" in topology["$defs"]["StageDefinition"]["properties"]
    timeout = topology["$defs"]["GateDefinition"]["properties"]["timeout"]
    assert {"type": "string"} in timeout["anyOf"]
