"""Only contracts says what a message looks like."""

import ast

from tests.architecture.workspace import Module, modules

# What an HTTP answer looks like is the gateway's to say, and the command line's to read.
ANSWERS = ("medkg.gateway.", "medkg.cli.")
# What a module writes for nobody but itself, opaque to all others.
NOTES_TO_ITSELF = {
    "medkg.haystack.passage_store": "rows of the embedded lexical index",
    "medkg.haystack.segments": "files of the embedded dense index",
    "medkg.ingest.cursor": "an adapter's cursor, from one page to the next",
    "medkg.gate_router.parking": "how a request came, kept in its row while it waits",
}


def test_only_contracts_defines_a_wire_model() -> None:
    """A private struct is another matter: the shape of a foreign answer, seen by the one module that reads it."""
    strangers = [
        f"{module}: {name}"
        for module in modules()
        if not module.name.startswith(("medkg.contracts.", *ANSWERS)) and module.name not in NOTES_TO_ITSELF
        for name in _structs(module)
        if not name.startswith("_")
    ]
    assert strangers == []


def test_the_wire_models_of_contracts_are_found() -> None:
    """Guards the test above: a search that finds nothing proves nothing."""
    found = {name for module in modules() if module.name == "medkg.contracts.messages" for name in _structs(module)}
    assert {"StageRequest", "StageEvent", "DeadLetter"} <= found


def _structs(module: Module) -> list[str]:
    """Names of the classes that derive from ``msgspec.Struct``, under whatever name it was imported."""
    names = {"msgspec.Struct"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "msgspec":
            names.update(alias.asname or alias.name for alias in node.names if alias.name == "Struct")
        elif isinstance(node, ast.Import):
            names.update(f"{alias.asname}.Struct" for alias in node.names if alias.name == "msgspec" and alias.asname)
    return [
        node.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(parent) in names for parent in node.bases)
    ]
