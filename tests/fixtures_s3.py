"""An S3 server for the suites: the one MEDKG_TEST_S3 names, else moto's, fetched by uv.

Where neither is to be had, a test skips and says what would help; in CI it fails.
"""

import os
import secrets
import urllib.request
from collections.abc import Iterator

import pytest
from tests.servers.s3 import S3Server, S3Unavailable


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint of a server that all tests share and that takes a bucket from anybody."""
    given = os.environ.get("MEDKG_TEST_S3", "")
    if given:
        yield given
        return
    with S3Server() as server:
        try:
            endpoint = server.start()
        except S3Unavailable as error:
            reason = f"no S3 server: {error}; or set MEDKG_TEST_S3=URL (`uvx --from 'moto[s3,server]' moto_server`)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        yield endpoint


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A bucket of this test's own, as location and endpoint; the credentials are in the environment."""
    for name, value in (("ACCESS_KEY_ID", "medkg"), ("SECRET_ACCESS_KEY", "medkg-secret"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    bucket = f"medkg-{secrets.token_hex(6)}"
    request = urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")
    with urllib.request.urlopen(request, timeout=30):
        pass
    return f"s3://{bucket}/fleet", s3_server
