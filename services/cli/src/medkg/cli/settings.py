"""Where the gateway is and whose documents are meant: a flag beats the environment, which beats the file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from medkg.cli.exits import UsageProblem

DEFAULT_GATEWAY = "http://127.0.0.1:8750"
GATEWAY_VARIABLE = "MEDKG_GATEWAY_URL"
TENANT_VARIABLE = "MEDKG_TENANT"
_MAX_FILE_BYTES = 65_536  # two settings; anything larger is some other file


def _check_gateway(value: str) -> str:
    try:
        url = httpx.URL(value)
    except httpx.InvalidURL as error:
        raise ValueError(f"not a URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"expected http://HOST:PORT, found {value!r}")
    return value.rstrip("/")


class Settings(BaseModel):
    """The settings every command shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gateway: Annotated[str, AfterValidator(_check_gateway)] = DEFAULT_GATEWAY
    tenant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "default"


def config_files(environment: Mapping[str, str], working_dir: Path) -> tuple[Path, ...]:
    """The places a configuration file is looked for; the first that exists is the one that counts."""
    home = environment.get("XDG_CONFIG_HOME") or (f"{environment['HOME']}/.config" if environment.get("HOME") else "")
    user_file = (Path(home) / "medkg" / "config.toml",) if home else ()
    return (working_dir / "medkg.toml", *user_file)


def load(flags: Mapping[str, str | None], environment: Mapping[str, str], files: tuple[Path, ...]) -> Settings:
    """The settings in force.

    Raises:
        UsageProblem: a value cannot be used; the message names where it came from.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    found = next((path for path in files if path.is_file()), None)
    layers: list[tuple[Mapping[str, Any], str]] = [
        (_read(found) if found else {}, str(found)),
        ({"gateway": environment.get(GATEWAY_VARIABLE)}, f"environment variable {GATEWAY_VARIABLE}"),
        ({"tenant": environment.get(TENANT_VARIABLE)}, f"environment variable {TENANT_VARIABLE}"),
        *(({name: value}, f"--{name}") for name, value in flags.items()),
    ]
    for layer, origin in layers:
        for name, value in layer.items():
            if value not in (None, ""):
                values[name] = value
                origins[name] = origin
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise UsageProblem("; ".join(_describe(detail, origins) for detail in error.errors())) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_MAX_FILE_BYTES).decode())
    except (OSError, ValueError) as error:
        raise UsageProblem(f"reading {path}: {error}", hint='expected TOML, such as: gateway = "http://…"') from error


def _describe(detail: Any, origins: Mapping[str, str]) -> str:
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return f"{origins[name]}: unknown setting {name!r}; known: {', '.join(Settings.model_fields)}"
    return f"{origins[name]}: {name}: {detail['msg'].removeprefix('Value error, ')}"
