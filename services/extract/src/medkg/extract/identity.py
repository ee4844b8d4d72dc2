"""What an entity is called everywhere: ids that two documents arrive at without knowing of each other."""

from medkg.contracts.document import Document
from medkg.contracts.ids import stable_id
from medkg.extract.tokens import name_key

MAX_KEY_LENGTH = 160  # of a folded name within an id; a longer one is shortened by its hash

_SUBJECT_TYPES = {"trial": "study", "article": "article"}
_SCHEMES = ("nct", "doi", "pmcid", "pmid")  # the first one that a document has is its id


def subject_of(document: Document) -> tuple[str, str]:
    """(entity id, type) of the document itself, as the subject of what it says."""
    kind = _SUBJECT_TYPES.get(document.kind, "document")
    for scheme in _SCHEMES:
        value = document.identifiers.get(scheme, "").strip()
        if value:
            return identifier_entity(scheme, value), kind
    return f"doc:{document.doc_id}", kind


def identifier_entity(scheme: str, value: str) -> str:
    """``nct:NCT01339377``, ``doi:10.1371/journal.pbio.0020188``. DOIs compare without case: they are in lower case."""
    bounded = value if len(value) <= MAX_KEY_LENGTH else f"~{stable_id(scheme, value)}"
    return f"{scheme}:{bounded.lower() if scheme == 'doi' else bounded.upper()}"


def named_entity(kind: str, name: str) -> str:
    """``name:condition:herniated disc``: a thing that is known by name only. Empty where the name holds no word."""
    key = name_key(name)
    if not any(character.isalnum() for character in key):
        return ""
    return f"name:{kind}:{key if len(key) <= MAX_KEY_LENGTH else '~' + stable_id(kind, key)}"
