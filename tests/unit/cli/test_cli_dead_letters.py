"""`medkg dead-letters show|redrive|drop`: the message as it was, and what becomes of it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from tests.unit.cli.conftest import FakeClock
from tests.unit.cli.test_cli_operations import LETTER
from typer.testing import Result

Medkg = Callable[..., Result]
ID = "medkg.parse.v1/2/118~5be0c1d2"


def letters(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [LETTER | {"id": f"medkg.parse.v1/2/{n}"} | fields for n in range(number)]


def listed(gateway: respx.MockRouter, *pages: list[dict[str, Any]]) -> respx.Route:
    return gateway.get("/v1/dead-letters").mock(
        side_effect=[httpx.Response(200, json={"dead_letters": page}) for page in pages]
    )


def decided(gateway: respx.MockRouter, decision: str = "redrive", **answer: Any) -> respx.Route:
    given: dict[str, Any] = {
        "status_code": 200,
        "json": {"id": ID, "state": "redriven", "topic": "medkg.parse.v1", "redrive": 1},
    }
    return gateway.post(f"/v1/dead-letters/{decision}").respond(**(given | answer))


def error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "it cannot be"}}


def test_a_dry_run_shows_what_would_be_redriven_and_does_nothing(medkg: Medkg, gateway: respx.MockRouter) -> None:
    listed(gateway, letters(3))
    posted = decided(gateway)
    result = medkg("dead-letters", "redrive", "--stage", "parse", "--dry-run")
    assert result.exit_code == 0
    assert "3  payload_malformed at parse" in result.stdout
    assert "3 dead letters would be redriven" in result.stdout
    assert not posted.called


def test_without_yes_it_asks_and_a_no_does_nothing(medkg: Medkg, gateway: respx.MockRouter) -> None:
    posted = decided(gateway)
    for answer, code in (("n\n", 0), ("", 2)):
        listed(gateway, letters(1))
        assert medkg("dead-letters", "redrive", "--all", input=answer).exit_code == code
    assert not posted.called
    listed(gateway, letters(1))
    assert medkg("dead-letters", "redrive", "--all", input="y\n").exit_code == 0
    assert posted.call_count == 1


def test_letters_are_redriven_one_by_one_with_who_and_why_and_not_too_fast(
    medkg: Medkg, gateway: respx.MockRouter, clock: FakeClock
) -> None:
    route, posted = listed(gateway, letters(5)), decided(gateway)
    arguments = ("--code", "stage_timeout", "--older-than", "2h", "--newer-than", "3d", "--rate", "2")
    result = medkg("dead-letters", "redrive", *arguments, "--yes", "--reason", "mended", "--tenant", "onco")
    assert result.exit_code == 0
    assert "5 dead letters redriven" in result.stdout
    asked = dict(route.calls.last.request.url.params)
    assert asked["older_than_seconds"] == "7200.0"
    assert asked["newer_than_seconds"] == "259200.0"
    assert (asked["state"], asked["tenant_id"]) == ("dead", "onco")
    bodies = [json.loads(call.request.content) for call in posted.calls]
    assert [body["id"] for body in bodies] == [letter["id"] for letter in letters(5)]
    assert {body["reason"] for body in bodies} == {"mended"}
    assert {call.request.url.params["tenant_id"] for call in posted.calls} == {"onco"}
    assert clock.seconds == pytest.approx(2.0)  # the fifth begins four halves of a second after the first


def test_more_letters_than_one_page_are_all_found(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = listed(gateway, letters(1_000), letters(7))
    result = medkg("dead-letters", "drop", "--all", "--dry-run", "--json")
    assert len(json.loads(result.stdout)["ids"]) == 1_007
    assert route.calls.last.request.url.params["after"] == "medkg.parse.v1/2/999"


def test_what_was_decided_before_is_passed_over_and_what_fails_is_said(medkg: Medkg, gateway: respx.MockRouter) -> None:
    listed(gateway, letters(3))
    gateway.post("/v1/dead-letters/redrive").mock(
        side_effect=[
            httpx.Response(409, json=error("already_decided")),
            httpx.Response(410, json=error("message_gone")),
            httpx.Response(200, json={"id": ID}),
        ]
    )
    result = medkg("dead-letters", "redrive", "--all", "--yes", "--json")
    assert result.exit_code == 1
    account = json.loads(result.stdout)
    assert account["redriven"] == ["medkg.parse.v1/2/2"]
    assert account["decided_before"] == ["medkg.parse.v1/2/0"]
    assert [fault["code"] for fault in account["failed"]] == ["message_gone"]


def test_a_fleet_that_goes_away_in_between_is_said_with_how_far_it_came(
    medkg: Medkg, gateway: respx.MockRouter
) -> None:
    listed(gateway, letters(3))
    gateway.post("/v1/dead-letters/redrive").mock(
        side_effect=[httpx.Response(200, json={"id": ID}), httpx.Response(503, json=error("resource_unavailable"))]
    )
    result = medkg("dead-letters", "redrive", "--all", "--yes")
    assert result.exit_code == 3
    assert "1 were redriven before that" in result.stderr


def test_one_letter_is_redriven_by_its_id(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = listed(gateway, letters(1))
    posted = decided(gateway, "drop")
    assert medkg("dead-letters", "drop", "medkg.parse.v1/2/0", "--yes").exit_code == 0
    assert route.calls.last.request.url.params["id"] == "medkg.parse.v1/2/0"
    assert posted.call_count == 1


@pytest.mark.parametrize(
    "arguments",
    [(), ("--older-than", "soon"), ("x/0/1", "--all"), ("x/0/1", "--stage", "parse"), ("--all", "--rate", "0")],
)
def test_a_command_that_does_not_say_which_letters_does_nothing(
    medkg: Medkg, gateway: respx.MockRouter, arguments: tuple[str, ...]
) -> None:
    assert medkg("dead-letters", "redrive", *arguments, "--yes").exit_code == 2
    assert not gateway.calls


def test_the_message_is_shown_harmlessly_and_saved_as_it_was(
    medkg: Medkg, gateway: respx.MockRouter, working_dir: Path
) -> None:
    gateway.get("/v1/dead-letters", params={"id": ID}).respond(json={"dead_letters": [LETTER | {"id": ID}]})
    value = b"\xff\x1b[31mred\x00"
    kept = {"id": ID, "key": None, "headers": [["ce_id", base64.b64encode(b"1\x1b").decode()]]}
    gateway.get("/v1/dead-letters/message").respond(json=kept | {"value": base64.b64encode(value).decode()})
    result = medkg("dead-letters", "show", ID, "--message", "--save", "poison.bin")
    assert result.exit_code == 0
    assert "\\xff" in result.stdout
    assert "\x1b" not in result.stdout
    assert (working_dir / "poison.bin").read_bytes() == value
    assert medkg("dead-letters", "show", ID, "--save", "poison.bin").exit_code == 2  # nothing is overwritten


def test_a_letter_says_what_was_decided_about_it(medkg: Medkg, gateway: respx.MockRouter) -> None:
    about = {"state": "redriven", "redrive": 2, "worker_version": "0.1.0"}
    about["decided"] = {"at": "2026-05-04T11:59:00Z", "by": "ann", "reason": "index was full"}
    gateway.get("/v1/dead-letters").respond(json={"dead_letters": [LETTER | about]})
    shown = medkg("dead-letters", "show", "42").stdout
    assert "redriven  2026-05-04T11:59:00Z by ann: index was full" in shown
    assert "host-1 0.1.0" in shown
    assert "redriven 2 times before" in shown
