"""Names in running text: what is found, where, and at what cost."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkg.extract.matching import MAX_NAME_TOKENS, Match, Matcher, Name, find, is_acronym
from medkg.extract.tokens import name_key, tokens


def matcher(*names: str) -> Matcher:
    return Matcher([Name(name, f"id:{name}") for name in names])


def found(text: str, *matchers: Matcher) -> list[tuple[str, str]]:
    """(as written in the text, as written in the dictionary) of each match."""
    return [(text[m.start : m.end], m.name.text) for m in find(text, matchers)]


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("heart failure", "Heart Failure was common", "Heart Failure"),
        ("migraine", "many migraines a month", "migraines"),
        ("Parkinson's disease", "early Parkinson disease", "Parkinson disease"),
        ("Parkinson's disease", "early Parkinson\u2019s disease", "Parkinson\u2019s disease"),
        ("COVID-19", "after covid 19", "covid 19"),
        ("Low-Molecular-Weight Heparin", "low molecular weight heparin", "low molecular weight heparin"),
        ("Sjögren syndrome", "SJOGREN SYNDROME", "SJOGREN SYNDROME"),
        ("herniated disc", "a herniated\n   disc", "herniated\n   disc"),
        ("Malaria, Falciparum", "of malaria, falciparum type", "malaria, falciparum"),
        ("AIDS", "HIV/AIDS clinic", "AIDS"),
        ("NSAID", "two NSAIDs", "NSAIDs"),
        ("CAR-T", "the CAR-T cells", "CAR-T"),
        ("allergies", "an allergy", "allergy"),
    ],
)
def test_a_name_is_found_in_another_case_number_or_spelling(name: str, text: str, written: str) -> None:
    assert found(text, matcher(name)) == [(written, name)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AIDS", "he aids his wife"),
        ("CAR-T", "by car t"),
        ("asthma", "asthmatic"),
        ("heart failure", "the heart. Failure followed"),
        ("heart failure", "heart / failure"),
        ("type 2 diabetes", "type 2, diabetes"),
        ("ab", "ab"),
        ("123", "123"),
    ],
)
def test_what_only_looks_like_a_name_is_not_found(name: str, text: str) -> None:
    assert found(text, matcher(name)) == []


def test_the_longest_name_wins_and_matches_do_not_overlap() -> None:
    names = matcher("diabetes", "type 2 diabetes", "diabetes mellitus", "mellitus")
    assert [w for w, _ in found("type 2 diabetes mellitus, diabetes", names)] == [
        "type 2 diabetes",
        "mellitus",
        "diabetes",
    ]


def test_of_two_matchers_the_longer_match_wins_and_on_a_tie_the_first_matcher() -> None:
    own, dictionary = Matcher([Name("asthma", "own")]), Matcher([Name("asthma", "d"), Name("asthma attack", "a")])
    assert [m.name.entity_id for m in find("asthma or asthma attacks", (own, dictionary))] == ["own", "a"]


def test_of_two_entities_with_one_name_the_first_given_has_it() -> None:
    assert find("Stroke", (Matcher([Name("stroke", "first"), Name("Strokes", "second")]),)) == [
        Match(0, 6, Name("stroke", "first"))
    ]


def test_a_whole_text_is_a_name_only_if_nothing_is_left_over() -> None:
    names = matcher("heart failure")
    assert names.whole("Heart failures") is not None
    assert names.whole("acute heart failure") is None
    assert names.whole("") is None


def test_a_name_of_too_many_words_is_left_out() -> None:
    long = " ".join(["word"] * (MAX_NAME_TOKENS + 1))
    assert find(long, (matcher(long),)) == []


WORDS = st.sampled_from(
    ["heart", "Hearts", "failure", "acute", "AIDS", "aids", "2", ",", "-", "type", "ß", "CAR-T", "é"]
)
PHRASES = st.lists(WORDS, max_size=14).map(" ".join)


@given(st.lists(PHRASES, max_size=8), PHRASES)
def test_the_trie_finds_what_comparing_every_name_at_every_place_finds(names: list[str], text: str) -> None:
    given_names = [Name(name, str(place)) for place, name in enumerate(names)]
    words = tokens(text)

    def naive_at(at: int) -> tuple[int, Name] | None:
        best: tuple[int, bool, int, Name] | None = None
        for place, name in enumerate(given_names):
            parts, exact = tokens(name.text), is_acronym(name.text)
            mine, theirs = (parts.exact, words.exact) if exact else (parts.keys, words.keys)
            usable = exact or (sum(map(len, mine)) >= 3 and any(c.isalpha() for c in name.text))
            if 0 < len(mine) <= MAX_NAME_TOKENS and usable and theirs[at : at + len(mine)] == mine:
                candidate = (len(mine), exact, -place, name)
                best = candidate if best is None or candidate[:3] > best[:3] else best
        return (best[0], best[3]) if best else None

    expected, at = [], 0
    while at < len(words.keys):
        hit = naive_at(at)
        if hit is not None:
            expected.append(Match(words.starts[at], words.ends[at + hit[0] - 1], hit[1]))
        at += hit[0] if hit else 1
    assert find(text, (Matcher(given_names),)) == expected


@given(st.text(max_size=200))
def test_tokens_of_any_text_lie_in_order_within_it_and_are_never_empty(text: str) -> None:
    words = tokens(text)
    assert all(words.keys) and all(words.exact)
    places = [place for pair in zip(words.starts, words.ends, strict=True) for place in pair]
    assert places == sorted(places)
    assert not places or (places[0] >= 0 and places[-1] <= len(text))
    assert all(a < b for a, b in zip(words.starts, words.ends, strict=True))


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_case_does_not_change_the_key_of_a_name(text: str) -> None:
    assert name_key(text.lower()) == name_key(text.upper())


def test_the_cost_grows_with_the_text_and_not_with_its_square() -> None:
    names = matcher(*(" ".join(["a1a"] * n) for n in range(1, MAX_NAME_TOKENS + 1)), "a1a " * 15 + "b")

    def seconds(size: int) -> float:
        text = "a1a " * size
        start = time.process_time()
        find(text, (names,))
        return time.process_time() - start

    seconds(2_000)
    small, large = min(seconds(5_000) for _ in range(3)), min(seconds(50_000) for _ in range(3))
    assert large < 30 * small, "ten times the text: about ten times the time"
