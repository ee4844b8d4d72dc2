"""Only contracts says what a message looks like."""

import ast

from tests.architecture.workspace import Module, modules

# What an HTTP answer looks like is the gateway's to say, and the command line's to read.
ANSWERS = ("medkg.gateway.", "medkg.cli.")
# What a module writes for nobody but itself, opaque to all others.
NOTES_TO_ITSELF = {
    "medkg.haystack.passage_store": "rows of the embedded lexical index",
    "medkg.haystack.segments": "files of the embedded dense index",
    "medkg.haystack.vectors.manifest": "which segments an index has, as writers and readers of this library keep it",
    "medkg.ingest.cursor": "an adapter's cursor, from one page to the next",
    "medkg.parse.pdf.child": "what the parser's own process is asked, and answers",
    "medkg.gate_router.parking": "how a request came, kept in its row while it waits",
    "medkg.haystack.writes": "term weights of a passage, as the stores of this library keep them",
    "medkg.storage.notices": "what PostgreSQL's NOTIFY carries from one transaction of this library to its listeners",
    "medkg.ledger.reconcile": "what the command prints as JSON",
    "medkg.ledger.orphans": "what the command prints as JSON",
}
# Values inside a process that are made for every record: a struct is made in a fifth of a dataclass's time.
NEVER_WRITTEN = {
    "medkg.runtime.records": "a record as it came",
    "medkg.runtime.outcome": "what a run made",
    "medkg.storage.ledger_said": "a stage event, read as far as the ledger needs it",
}


def test_only_contracts_defines_a_wire_model() -> None:
    """A private struct is another matter: the shape of a foreign answer, seen by the one module that reads it."""
    strangers = [
        f"{module}: {name}"
        for module in modules()
        if not module.name.startswith(("medkg.contracts.", *ANSWERS))
        and module.name not in NOTES_TO_ITSELF | NEVER_WRITTEN
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
