"""Finding the names of a dictionary in running text: leftmost, longest, whole words, in linear time.

A trie of tokens, not of characters: names begin and end at word boundaries by construction, and each position of the
text is followed for at most as many tokens as the longest name has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from medkg.extract.tokens import Tokens, tokens

MAX_NAME_TOKENS = 16  # a longer name is a sentence; nobody writes it twice the same way
_ACRONYM_LENGTH = 6  # "AIDS" is not "aids", "CAR-T" is not "car t"
_SHORTEST = 3  # characters of a name that is found in any case
_END = ""  # no token is empty


@dataclass(frozen=True, slots=True)
class Name:
    """A name to look for, and the entity it stands for."""

    text: str
    entity_id: str


@dataclass(frozen=True, slots=True)
class Match:
    """Characters ``[start, end)`` of the text read as ``name``."""

    start: int
    end: int
    name: Name


@dataclass(slots=True)
class Matcher:
    """The names of one vocabulary. Built once, then only read: any number of threads may use it.

    Of several entities with the same name the one that was given first has it.
    """

    names: Iterable[Name]
    _folded: dict[str, Any] = field(default_factory=dict, init=False)
    _exact: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in self.names:
            self._add(name)
        self.names = ()

    def _add(self, name: Name) -> None:
        words = tokens(name.text)
        if not 0 < len(words.keys) <= MAX_NAME_TOKENS:
            return
        if is_acronym(name.text):
            _insert(self._exact, words.exact, name)
        elif sum(map(len, words.keys)) >= _SHORTEST and any(c.isalpha() for c in name.text):
            _insert(self._folded, words.keys, name)

    def longest_at(self, words: Tokens, first: int) -> tuple[int, Name] | None:
        """The longest name that begins with the token ``first``: how many tokens it has, and which it is."""
        exact = _walk(self._exact, words.exact, first) if words.exact[first] in self._exact else None
        folded = _walk(self._folded, words.keys, first) if words.keys[first] in self._folded else None
        if exact and folded:
            return exact if exact[0] >= folded[0] else folded
        return exact or folded

    def whole(self, text: str) -> Name | None:
        """The name that the whole of ``text`` is, if it is one."""
        words = tokens(text)
        found = self.longest_at(words, 0) if words.keys else None
        return found[1] if found and found[0] == len(words.keys) else None


def find(text: str, matchers: Sequence[Matcher]) -> list[Match]:
    """The names in a text, left to right, none overlapping another; where two begin together the longer one.

    Of equally long ones the first matcher's is taken.
    """
    words = tokens(text)
    found: list[Match] = []
    at = 0
    while at < len(words.keys):
        best: tuple[int, Name] | None = None
        for matcher in matchers:
            longest = matcher.longest_at(words, at)
            if longest and (best is None or longest[0] > best[0]):
                best = longest
        if best is None:
            at += 1
            continue
        length, name = best
        found.append(Match(words.starts[at], words.ends[at + length - 1], name))
        at += length
    return found


def is_acronym(name: str) -> bool:
    """Short, without a space, and with two capitals at least: found only in its own case."""
    return len(name) <= _ACRONYM_LENGTH and " " not in name and sum(c.isupper() for c in name) >= 2


def _insert(trie: dict[str, Any], keys: Sequence[str], name: Name) -> None:
    node = trie
    for key in keys:
        node = node.setdefault(key, {})
    node.setdefault(_END, name)


def _walk(trie: dict[str, Any], keys: Sequence[str], first: int) -> tuple[int, Name] | None:
    best: tuple[int, Name] | None = None
    node = trie
    for at in range(first, len(keys)):
        if keys[at] not in node:
            break
        node = node[keys[at]]
        if _END in node:
            best = at - first + 1, node[_END]
    return best
