"""What holds for every command: help with examples, settings and their order, exit codes, errors, broken pipes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import respx
from typer.testing import Result

from medkg.cli.exits import EXIT_CODES, Exit, UsageProblem
from medkg.cli.settings import config_files, load

Medkg = Callable[..., Result]

COMMANDS = [
    ("up",),
    ("demo",),
    ("submit",),
    ("watch",),
    ("jobs",),
    ("status",),
    ("search",),
    ("graph",),
    ("dead-letters",),
    ("dead-letters", "list"),
    ("dead-letters", "show"),
    ("rejections",),
    ("topology",),
    ("topology", "check"),
    ("topology", "show"),
    ("topology", "schema"),
    ("version",),
]
ASKING = [
    ("status",),
    ("jobs",),
    ("watch",),
    ("watch", "a" * 32),
    ("search", "x"),
    ("graph", "x"),
    ("dead-letters",),
    ("dead-letters", "list"),
    ("dead-letters", "show", "1"),
    ("rejections",),
    ("submit", "--no-check", "/x"),
    ("submit", "--no-check", "/x", "--wait"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_examples_in_its_help(medkg: Medkg, command: tuple[str, ...]) -> None:
    result = medkg(*command, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.stdout
    assert f"medkg {command[0]}" in result.stdout


def test_help_documents_every_exit_code(medkg: Medkg) -> None:
    result = medkg("--help")
    assert {code for code, _ in EXIT_CODES} == set(Exit)
    for code, meaning in EXIT_CODES:
        assert f"{code:>3}  {meaning}" in result.stdout


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_a_fleet_that_is_not_up_is_exit_code_3_with_the_way_out(
    medkg: Medkg, gateway: respx.MockRouter, command: tuple[str, ...]
) -> None:
    gateway.route().mock(side_effect=httpx.ConnectError("refused"))
    result = medkg(*command)
    assert result.exit_code == 3
    assert "the fleet is not up at http://gateway.test:8750" in result.stderr
    assert "start it with `medkg up`" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_errors_are_json_on_standard_error_with_json(
    medkg: Medkg, gateway: respx.MockRouter, command: tuple[str, ...]
) -> None:
    gateway.route().mock(side_effect=httpx.ConnectError("refused"))
    result = medkg(*command, "--json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "the fleet is not up" in json.loads(result.stderr)["error"]["message"]


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_server_errors_come_with_code_message_and_hint(
    medkg: Medkg, gateway: respx.MockRouter, command: tuple[str, ...]
) -> None:
    error = {"code": "internal_error", "message": "it [broke]\x1b[31m", "hint": "read the log"}
    gateway.route().respond(500, json={"error": error})
    result = medkg(*command)
    assert result.exit_code == 1
    assert "error: it [broke]  [internal_error]" in result.stderr
    assert "hint: read the log" in result.stderr


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello"),
        httpx.Response(404, text="not here"),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(302, headers={"location": "http://elsewhere/"}),
        httpx.Response(200, content=b"[" * 100_000),
    ],
    ids=["html", "404", "other json", "redirect", "nested"],
)
def test_something_else_on_that_address_is_not_taken_for_a_gateway(
    medkg: Medkg, gateway: respx.MockRouter, response: httpx.Response
) -> None:
    gateway.route().mock(return_value=response)
    result = medkg("status")
    assert result.exit_code == 3
    assert "does not speak as a medkg gateway" in result.stderr


def test_an_answer_without_end_is_cut_off(
    medkg: Medkg, gateway: respx.MockRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medkg.cli.client.MAX_ANSWER_BYTES", 1_000)
    gateway.route().respond(200, content=b" " * 2_000)
    assert "is over 1000 bytes" in medkg("status").stderr


def test_a_503_of_the_gateway_is_exit_code_3(medkg: Medkg, gateway: respx.MockRouter) -> None:
    error = {"code": "resource_unavailable", "message": "Kafka does not answer"}
    gateway.route().respond(503, json={"error": error})
    assert medkg("submit", "--no-check", "/x").exit_code == 3


def test_names_in_addresses_are_escaped(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = gateway.route().respond(404, json={"error": {"code": "not_found", "message": "no"}})
    medkg("graph", "a&limit=9#x/../y")
    assert dict(route.calls.last.request.url.params)["entity"] == "a&limit=9#x/../y"


@pytest.mark.parametrize("arguments", [("--gateway", "http://other:1"), ("--gateway=http://other:1",)])
def test_global_options_may_stand_after_the_command(medkg: Medkg, arguments: tuple[str, ...]) -> None:
    with respx.mock(base_url="http://other:1") as other:
        route = other.get("/v1/jobs").respond(json={"jobs": []})
        assert medkg("jobs", *arguments, "--no-color").exit_code == 0
        assert medkg(*arguments, "jobs").exit_code == 0
    assert route.call_count == 2


def test_words_after_a_double_dash_are_never_global_options(medkg: Medkg, gateway: respx.MockRouter) -> None:
    route = gateway.get("/v1/search").respond(json={"hits": []})
    assert medkg("search", "--", "--gateway").exit_code == 0
    assert route.calls.last.request.url.params["q"] == "--gateway"


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "medkg.toml"
    file.write_text('gateway = "http://file:1"\ntenant = "from-file"\n')
    environment = {"MEDKG_GATEWAY_URL": "http://environment:1/"}
    assert load({}, {}, ()).gateway == "http://127.0.0.1:8750"
    assert load({}, {}, (tmp_path / "absent.toml", file)).gateway == "http://file:1"
    assert load({}, environment, (file,)).gateway == "http://environment:1"
    assert load({"gateway": "http://flag:1"}, environment, (file,)).gateway == "http://flag:1"
    assert load({"gateway": None}, environment, (file,)).tenant == "from-file"


def test_the_file_beside_one_beats_that_of_the_user() -> None:
    here, home = Path("/here"), {"HOME": "/home/me"}
    assert config_files(home, here) == (Path("/here/medkg.toml"), Path("/home/me/.config/medkg/config.toml"))
    assert config_files(home | {"XDG_CONFIG_HOME": "/x"}, here)[1] == Path("/x/medkg/config.toml")
    assert config_files({}, here) == (Path("/here/medkg.toml"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('gatway = "http://x:1"', "unknown setting 'gatway'; known: gateway, tenant"),
        ("gateway = ", "medkg.toml"),
        ("gateway = 5", "gateway"),
        ('gateway = "ftp://x"', "expected http://HOST:PORT, found 'ftp://x'"),
        ('tenant = "A B"', "tenant"),
    ],
)
def test_a_file_at_fault_is_named_with_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "medkg.toml"
    file.write_text(content)
    with pytest.raises(UsageProblem) as caught:
        load({}, {}, (file,))
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_a_bad_setting_in_the_environment_is_wrong_usage(medkg: Medkg) -> None:
    result = medkg("status", env={"MEDKG_GATEWAY_URL": "nonsense"})
    assert result.exit_code == 2
    assert "environment variable MEDKG_GATEWAY_URL" in result.stderr


def test_the_tenant_of_the_file_is_used(medkg: Medkg, gateway: respx.MockRouter, working_dir: Path) -> None:
    (working_dir / "medkg.toml").write_text('tenant = "lab"')
    route = gateway.get("/v1/jobs").respond(json={"jobs": []})
    medkg("jobs")
    assert route.calls.last.request.url.params["tenant_id"] == "lab"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path, flags: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "medkg.cli", "version", *flags]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, timeout=60, check=False
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == Exit.READER_GONE
