"""What every shipped module owes its reader."""

import ast

import pytest
from tests.architecture.workspace import Module, modules

BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
LONGEST_MODULE = 500  # lines; about 300 is the aim, past this there is surely a second idea inside


@pytest.mark.parametrize("module", modules(), ids=str)
def test_a_module_opens_with_a_sentence(module: Module) -> None:
    first = (ast.get_docstring(module.tree) or "").partition("\n\n")[0]
    assert len(first.split()) >= 2, f"{module} does not say what it is for"
    assert first.rstrip().endswith((".", ":"))


def test_no_module_is_named_after_nothing() -> None:
    assert [str(module) for module in modules() if module.name.rpartition(".")[2] in BANNED_NAMES] == []


def test_no_module_is_too_long_to_be_one_thought() -> None:
    lengths = {str(module): len(module.path.read_text(encoding="utf-8").splitlines()) for module in modules()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_module_works_at_import() -> None:
    """A client, a task or a read of the environment at import time would make every import a side effect."""
    found = [
        f"{module}:{call.lineno} {ast.unparse(call.func)}"
        for module in modules()
        for statement in module.tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call) and ast.unparse(call.func) in _WORK and not _is_deferred(statement, call)
    ]
    assert found == []


_WORK = {
    "os.getenv",
    "os.environ.get",
    "open",
    "asyncio.run",
    "Producer",
    "Consumer",
    "AdminClient",
    "create_async_engine",
}


def _is_deferred(statement: ast.stmt, call: ast.Call) -> bool:
    """Is the call inside a lambda of the statement?"""
    return any(call in ast.walk(node) for node in ast.walk(statement) if isinstance(node, ast.Lambda))
