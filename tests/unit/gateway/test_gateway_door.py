"""What holds for every request: bounds, the one form of errors, headers, who may speak, and the OpenAPI document."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.unit.gateway.asking import Gateway, error_of

from medkg.contracts.errors import ConfigurationError

ROUTES = {
    "/v1/jobs": {"get", "post"},
    "/v1/jobs/{job_id}": {"get"},
    "/v1/jobs/{job_id}/documents": {"get"},
    "/v1/jobs/{job_id}/documents/{doc_id}": {"get"},
    "/v1/search": {"get"},
    "/v1/graph": {"get"},
    "/v1/dead-letters": {"get"},
    "/v1/gates": {"get"},
    "/v1/gates/decisions": {"post"},
    "/v1/why/{identity}": {"get"},
    "/v1/dead-letters/message": {"get"},
    "/v1/dead-letters/redrive": {"post"},
    "/v1/dead-letters/drop": {"post"},
    "/v1/rejections": {"get"},
    "/v1/pipelines": {"get"},
    "/v1/pipelines/{name}": {"get"},
    "/v1/status": {"get"},
    "/healthz": {"get"},
    "/metrics": {"get"},
}
FREE_FORM = {"/v1/pipelines/{name}", "/metrics"}  # a topology as it is pinned, and Prometheus' text
JSON = {"content-type": "application/json"}


async def unannounced() -> AsyncIterator[bytes]:
    yield b"{}"


def assert_safe(response: httpx.Response) -> None:
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("length", ["1048577", "9" * 400, "-1", "1e3", "", "٣"])
async def test_a_body_that_is_too_large_or_says_nothing_of_its_size_is_not_read(gateway: Gateway, length: str) -> None:
    headers = JSON | {"content-length": length.encode()}
    response = await gateway.send("POST", "/v1/jobs", content=b"{}", headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (413, "payload_too_large")
    assert "1048576 bytes" in error_of(response)["message"]
    assert_safe(response)


async def test_a_body_in_chunks_is_not_read(gateway: Gateway) -> None:
    response = await gateway.send("POST", "/v1/jobs", content=unannounced(), headers=JSON)
    assert response.status_code == 413
    assert gateway.kafka.taken == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_form_on_a_web_page_cannot_submit_a_job(gateway: Gateway, content_type: str) -> None:
    body = b'{"tenant_id":"default","source":"files","selection":{"paths":["/"]}}'
    response = await gateway.send("POST", "/v1/jobs", content=body, headers={"content-type": content_type})
    assert (response.status_code, error_of(response)["code"]) == (415, "media_type_unsupported")
    assert gateway.kafka.taken == []
    charset = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await gateway.send("POST", "/v1/jobs", content=body, headers=charset)).status_code == 202


async def test_a_gateway_on_loopback_answers_to_its_own_names_alone(gateway: Gateway) -> None:
    gateway.settings["host_names"] = frozenset({"localhost", "127.0.0.1"})
    for host in ("localhost:8750", "127.0.0.1", "LOCALHOST"):
        assert (await gateway.send("GET", "/healthz", headers={"host": host})).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8750", "localhost@evil.example", ""):
        response = await gateway.send("GET", "/healthz", headers={"host": host})
        assert (response.status_code, error_of(response)["code"]) == (421, "host_unknown"), host
        assert_safe(response)


@pytest.mark.parametrize("path", ["/", "/v2/jobs", "/v1/jobs/", "/v1/nothing"])
async def test_an_unknown_path_is_404_like_everything_that_is_not_there(gateway: Gateway, path: str) -> None:
    response = await gateway.get(path)
    assert response.status_code in {404, 307}
    if response.status_code == 404:
        assert error_of(response)["code"] == "not_found"
    assert_safe(response)


async def test_another_method_is_405_and_says_which_are_allowed(gateway: Gateway) -> None:
    response = await gateway.send("DELETE", "/v1/status")
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET"


async def test_every_answer_has_the_headers_of_a_careful_server(gateway: Gateway) -> None:
    for path in ("/healthz", "/v1/jobs", "/v1/jobs/x", "/openapi.json", "/metrics"):
        assert_safe(await gateway.get(path))
    gateway.ledger.is_away = True
    assert_safe(await gateway.get("/v1/status"))


async def test_a_bug_is_an_answer_in_the_same_form_and_stands_in_the_log_alone(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.ledger.failure = RuntimeError("the password is swordfish")
    with caplog.at_level(logging.ERROR):
        response = await gateway.get("/v1/status")
    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert "swordfish" not in response.text
    assert "swordfish" in caplog.text
    assert_safe(response)


async def test_a_fault_in_the_settings_is_no_fault_of_the_client(gateway: Gateway) -> None:
    gateway.ledger.failure = ConfigurationError("reading the index: it was made by another version")
    response = await gateway.get("/v1/status")
    assert (response.status_code, error_of(response)["code"]) == (500, "configuration_invalid")


async def document_of(gateway: Gateway) -> dict[str, Any]:
    return dict((await gateway.get("/openapi.json")).json())


async def test_the_openapi_document_has_every_route(gateway: Gateway) -> None:
    paths = (await document_of(gateway))["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == ROUTES


async def test_the_openapi_document_describes_every_answer_and_every_error(gateway: Gateway) -> None:
    document = await document_of(gateway)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            if path in FREE_FORM:
                continue
            good = operation["responses"]["202" if (path, method) == ("/v1/jobs", "post") else "200"]["content"]
            assert "$ref" in good["application/json"]["schema"], (path, method)
            for code in ("404", "413", "422", "503"):
                schema = operation["responses"][code]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (path, code)


async def test_the_openapi_document_says_what_a_submission_holds(gateway: Gateway) -> None:
    body = (await document_of(gateway))["paths"]["/v1/jobs"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["tenant_id", "source", "selection"]
    assert schema["additionalProperties"] is False


async def test_every_answer_of_a_list_is_described_to_its_last_field(gateway: Gateway) -> None:
    schemas = (await document_of(gateway))["components"]["schemas"]
    assert {"JobPage", "Job", "DocumentPage", "StageRun", "SearchHit", "PassagePlace", "GraphClaim"} <= set(schemas)
    assert schemas["Submitted"]["properties"]["state"]["enum"] == ["admitted", "submitted"]
