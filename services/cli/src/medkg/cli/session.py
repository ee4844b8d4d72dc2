"""What a command works with: its settings, its two streams, a clock and the gateway."""

import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console, RenderableType

from medkg.cli.client import GatewayClient
from medkg.cli.settings import Settings
from medkg.cli.terminal import to_json

_PIPE_WIDTH = 120  # where there is no terminal to ask

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, one object on one line.")]
TenantFlag = Annotated[str | None, typer.Option("--tenant", metavar="T", help="Whose documents (MEDKG_TENANT).")]


class Clock(Protocol):
    """Time, so that tests need not wait for it."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(slots=True)
class Session:
    """One call of the command. Results go to ``out``; with ``--json``, everything but the JSON goes to ``err``."""

    settings: Settings
    out: Console
    err: Console
    clock: Clock
    as_json: bool = False

    @property
    def people(self) -> Console:
        """Where text for people goes."""
        return self.err if self.as_json else self.out

    def show(self, *renderables: RenderableType, soft_wrap: bool = False) -> None:
        """Print for people. ``soft_wrap`` leaves long lines whole; a pipe or file gets no trailing blanks."""
        console = self.people
        if console.is_terminal:
            console.print(*renderables, sep="\n", soft_wrap=soft_wrap)
            return
        with console.capture() as capture:
            console.print(*renderables, sep="\n", soft_wrap=soft_wrap)
        console.file.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
        console.file.flush()  # a reader that has gone is noticed here, not at the end of the interpreter

    def client(self, tenant: str | None = None) -> GatewayClient:
        """A connection for a tenant: the one that the command's flag names, or the one of the settings."""
        return GatewayClient(self.settings.gateway, self.tenant(tenant))

    def tenant(self, flag: str | None) -> str:
        return flag or self.settings.tenant

    def emit(self, value: Any) -> None:
        """One JSON object on one line of standard output."""
        sys.stdout.write(to_json(value) + "\n")
        sys.stdout.flush()


def open_console(*, stderr: bool = False, no_color: bool = False) -> Console:
    """A console that takes every string literally: what comes from outside is never read as markup."""
    console = Console(stderr=stderr, no_color=no_color or None, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def session_of(ctx: typer.Context, as_json: bool = False) -> Session:
    """The session that the global options opened."""
    session = ctx.find_object(Session)
    if session is None:
        raise RuntimeError("a command ran outside `medkg`: the global options were not read")
    session.as_json = as_json
    return session
