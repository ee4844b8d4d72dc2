"""Fixtures that every suite shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
CORPUS = (ROOT.parent / "shared" / "corpus").resolve()

pytest_plugins = [
    "tests.closing_summary",
    "tests.fixtures_fleet",
    "tests.fixtures_kafka",
    "tests.fixtures_opensearch",
    "tests.fixtures_postgres",
    "tests.fixtures_s3",
]

# The same examples in every run of CI: new ones are looked for where somebody is there to look at them.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real inputs beside the checkout; skips where it is absent."""
    if not CORPUS.is_dir():
        pytest.skip(f"no corpus of real inputs at {CORPUS}: put one beside the checkout to run this")
    return CORPUS
