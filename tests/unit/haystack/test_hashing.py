"""Vectors without a model."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medkg.contracts.errors import ContractError
from medkg.haystack.embedding import TextKind, unit_rows
from medkg.haystack.hashing import HashingEmbedder

EMBEDDER = HashingEmbedder()
TEXT = "Metformin lowers HbA1c in type 2 diabetes; IL-6 \u03b2-cells, caf\u00e9."
# the bytes of this text's vector, as they were when version 1 was written: a change of them needs a new version
DIGEST = "de4f9f023a7119b5bd3c853feda1f27a91a91ce992448772ab24480349687c51"


def vector(text: str, embedder: HashingEmbedder = EMBEDDER) -> NDArray[np.float32]:
    values: NDArray[np.float32] = embedder.vectors([text], TextKind.PASSAGE).vectors[0]
    return values


@given(st.text(), st.sampled_from([32, 384]))
def test_every_text_gets_a_vector_of_unit_length(text: str, dimension: int) -> None:
    values = vector(text, HashingEmbedder(dimension))
    assert values.dtype == np.dtype("<f4")
    assert values.shape == (dimension,)
    assert np.linalg.norm(values.astype(float)) == pytest.approx(1, abs=1e-5)


def test_the_bytes_are_those_of_the_first_release_whatever_the_hash_seed() -> None:
    program = (
        "import hashlib; from medkg.haystack.hashing import HashingEmbedder; "
        f"v = HashingEmbedder().vectors([{TEXT!r}], 'passage').vectors; print(hashlib.sha256(v.tobytes()).hexdigest())"
    )
    for seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        printed = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert printed.stdout.strip() == DIGEST


def test_texts_that_share_words_or_parts_of_words_are_nearer() -> None:
    aspirin = vector("aspirin prevents myocardial infarction")
    assert aspirin @ vector("myocardial infarction and aspirin") > 0.5
    assert aspirin @ vector("infarctions of the myocardium") > aspirin @ vector("stock market prices fell") + 0.1


def test_order_of_words_matters_a_little_and_case_does_not() -> None:
    assert vector("Alpha beta") @ vector("ALPHA BETA") == pytest.approx(1)
    assert 0.5 < vector("alpha beta gamma") @ vector("gamma beta alpha") < 0.999


@pytest.mark.parametrize("text", ["", " ", "\u2014", "... !"])
def test_texts_without_a_word_share_one_vector_that_is_near_nothing(text: str) -> None:
    assert vector(text) @ vector("") == pytest.approx(1)
    assert abs(vector(text) @ vector(TEXT)) < 0.2


def test_a_word_repeated_a_thousand_times_counts_less_than_a_thousand_times() -> None:
    assert vector("asthma " * 1000 + "copd") @ vector("copd") > 0.05


def test_the_model_name_leads_back_to_an_equal_embedder() -> None:
    again = HashingEmbedder.of_model(HashingEmbedder(128).model)
    assert again is not None
    assert np.array_equal(vector(TEXT, again), vector(TEXT, HashingEmbedder(128)))
    assert HashingEmbedder.of_model("openai:x/384") is None
    assert HashingEmbedder.of_model("hashing-384/2") is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 0.0]], r"came back as \(1, 2\)"),
        ([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "zeros"),
        ([[1.0, 1.0, 1.0], [float("nan"), 1.0, 1.0]], "text 1 holds a value that is not finite"),
        ([[1.0, 1.0, 1.0], [float("inf"), 1.0, 1.0]], "not finite"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(rows: list[list[float]], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        unit_rows(np.array(rows), 2, 3, "m")
