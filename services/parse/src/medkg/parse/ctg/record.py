"""Reading a JSON record of which nothing is certain, with the JSON Pointer (RFC 6901) of everything that is found."""

import re
from collections.abc import Iterator

_WORD = re.compile(r"(?<=[A-Za-z])(?=[0-9])")


class Node:
    """A value of a record and its place in it. What is missing or of another kind reads as empty; nothing raises."""

    __slots__ = ("at", "value")

    def __init__(self, value: object, at: str = "") -> None:
        self.value = value
        self.at = at

    def get(self, *names: str) -> "Node":
        """The member of an object, of a member of it, and so on."""
        node = self
        for name in names:
            value = node.value.get(name) if isinstance(node.value, dict) else None
            node = Node(value, f"{node.at}/{_escape(name)}")
        return node

    def items(self) -> Iterator["Node"]:
        """The elements of an array."""
        if isinstance(self.value, list):
            for index, value in enumerate(self.value):
                yield Node(value, f"{self.at}/{index}")

    @property
    def text(self) -> str:
        """A string or number as text, else empty."""
        if isinstance(self.value, str):
            return self.value
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return str(self.value) if is_number else ""

    @property
    def words(self) -> str:
        """A value of an enumeration for people: ``ACTIVE_NOT_RECRUITING`` -> ``Active not recruiting``, ``PHASE2`` ->
        ``Phase 2``."""
        text = self.text
        return _WORD.sub(" ", text.replace("_", " ")).capitalize() if text.isupper() else text

    def texts(self) -> list[str]:
        """The strings of an array."""
        return [text for item in self.items() if (text := item.text)]

    def __bool__(self) -> bool:
        return bool(self.value)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
