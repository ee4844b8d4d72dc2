"""A real OpenSearch for the suites: the one MEDKG_TEST_OPENSEARCH names, else one put together from Maven Central.

Where neither is to be had, a test skips and says what would help; in CI it fails.
"""

import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests.servers.opensearch.distribution import OpenSearchUnavailable, distribution
from tests.servers.opensearch.server import OpenSearchServer, answers


@pytest.fixture(scope="session")
def opensearch() -> Iterator[str]:
    """URL of a node that all tests share: use indexes that begin with ``opensearch_prefix``."""
    given = os.environ.get("MEDKG_TEST_OPENSEARCH", "")
    if given:
        if not answers(given):
            pytest.fail(f"no OpenSearch answers at MEDKG_TEST_OPENSEARCH={given}")
        yield given
        return
    try:
        found = distribution()
    except OpenSearchUnavailable as error:
        reason = (
            f"no OpenSearch: {error}; or set MEDKG_TEST_OPENSEARCH=URL (python -m tests.servers.opensearch starts one)"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with OpenSearchServer(found) as server:
        yield server.start()


@pytest.fixture
def opensearch_prefix(opensearch: str) -> Iterator[str]:
    """What the names of this test's indexes begin with; they are deleted at its end."""
    prefix = f"t{secrets.token_hex(4)}"
    yield prefix
    for path in (f"/{prefix}-*", f"/_index_template/medkg-passages-{prefix}"):
        request = urllib.request.Request(f"{opensearch}{path}", method="DELETE")
        try:
            with urllib.request.urlopen(request, timeout=30):
                pass
        except urllib.error.HTTPError as error:
            if error.code != 404:  # a test that made none
                raise
