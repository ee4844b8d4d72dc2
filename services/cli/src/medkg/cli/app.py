"""The command `medkg`: its global options, its commands, and how every error ends."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from medkg.cli import (
    dead_letters,
    demo,
    evaluate,
    gates,
    graph,
    index,
    ledger,
    search,
    status,
    submit,
    topology,
    up,
    watch,
    why,
)
from medkg.cli.exits import EXIT_CODES, CommandError, Exit, FleetUnreachable, UsageProblem
from medkg.cli.job_view import fault_json, fault_text
from medkg.cli.session import Session, SystemClock, open_console
from medkg.cli.settings import DEFAULT_GATEWAY, GATEWAY_VARIABLE, config_files, load
from medkg.cli.terminal import clean, to_json
from medkg.contracts.errors import ConfigurationError, MedkgError, ResourceUnavailableError

_EXIT_CODES = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)
_EPILOG = f"""\
[bold]Examples[/bold]
  medkg up                                      in a terminal of its own
  medkg submit --source files samples/trials --wait   read a folder
  medkg search 'sciatica without surgery'       find passages
  medkg graph Sciatica                          see what is said of it

[bold]Exit codes[/bold]
{_EXIT_CODES}

[bold]Settings[/bold]
  gateway   --gateway, MEDKG_GATEWAY_URL, or gateway = "URL" in the file
  tenant    --tenant, MEDKG_TENANT, or tenant = "NAME" in the file
  The file is ./medkg.toml, else ~/.config/medkg/config.toml.
  A flag beats the environment, which beats the file. NO_COLOR is honoured."""


class Commands(TyperGroup):
    """The commands of `medkg`. Global options may stand anywhere; every error ends as a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`medkg status --gateway URL` means the same as `medkg --gateway URL status`."""
        first, rest, literal = [], [], False
        words = iter(args)
        for word in words:
            literal = literal or word == "--"
            if literal or (word not in {"--gateway", "--no-color"} and not word.startswith("--gateway=")):
                rest.append(word)
            else:
                first.append(word)
                first.extend(
                    [value for value in [next(words, None)] if value is not None] if word == "--gateway" else []
                )
        return super().parse_args(ctx, first + rest)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _silence_output()
            raise typer.Exit(Exit.READER_GONE) from None
        except CommandError as error:
            _report(ctx.find_object(Session), error)
            raise typer.Exit(error.exit_code) from None
        except MedkgError as error:
            kind = next((kind for known, kind in _KINDS.items() if isinstance(error, known)), CommandError)
            _report(ctx.find_object(Session), kind(error.message, code=error.code))
            raise typer.Exit(kind.exit_code) from None


_KINDS: dict[type[MedkgError], type[CommandError]] = {
    ConfigurationError: UsageProblem,
    ResourceUnavailableError: FleetUnreachable,
}

app = typer.Typer(
    cls=Commands,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def open_session(
    ctx: typer.Context,
    gateway: Annotated[
        str | None,
        typer.Option(
            "--gateway",
            metavar="URL",
            help=f"Where the fleet answers ({GATEWAY_VARIABLE}).",
            show_default=DEFAULT_GATEWAY,
        ),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.")] = False,
) -> None:
    """Biomedical sources to passages that can be searched and facts that can be walked."""
    settings = load({"gateway": gateway}, os.environ, config_files(os.environ, Path.cwd()))
    out, err = open_console(no_color=no_color), open_console(stderr=True, no_color=no_color)
    clock = ctx.obj if ctx.obj is not None else SystemClock()  # a test hands in its own
    ctx.obj = Session(settings=settings, out=out, err=err, clock=clock)


_RUN, _READ, _LOOK = "Run", "Read", "Look after"
app.command("up", epilog=up.EXAMPLES, rich_help_panel=_RUN)(up.up)
app.command("demo", epilog=demo.EXAMPLES, rich_help_panel=_RUN)(demo.demo)
app.command("submit", epilog=submit.EXAMPLES, rich_help_panel=_RUN)(submit.submit)
app.command("search", epilog=search.EXAMPLES, rich_help_panel=_READ)(search.search)
app.command("graph", epilog=graph.EXAMPLES, rich_help_panel=_READ)(graph.graph)
app.command("evaluate", epilog=evaluate.EXAMPLES, rich_help_panel=_READ)(evaluate.evaluate)
app.command("watch", epilog=watch.WATCH_EXAMPLES, rich_help_panel=_LOOK)(watch.watch)
app.command("jobs", epilog=watch.JOBS_EXAMPLES, rich_help_panel=_LOOK)(watch.jobs)
app.command("status", epilog=status.EXAMPLES, rich_help_panel=_LOOK)(status.status)
app.command("why", epilog=why.EXAMPLES, rich_help_panel=_LOOK)(why.why)
app.add_typer(gates.app, name="gates", rich_help_panel=_LOOK)
app.add_typer(ledger.app, name="ledger", rich_help_panel=_LOOK)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=_LOOK)
app.command("rejections", epilog=dead_letters.REJECTIONS_EXAMPLES, rich_help_panel=_LOOK)(dead_letters.rejections)
app.add_typer(topology.app, name="topology", rich_help_panel=_LOOK)
app.add_typer(index.app, name="index", rich_help_panel=_LOOK)
app.command("version", epilog=status.VERSION_EXAMPLES, rich_help_panel=_LOOK)(status.version)


def main() -> None:
    """The console script."""
    logging.getLogger("medkg").addHandler(logging.NullHandler())  # errors are reported once, by the command
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? and does not crash
    app(prog_name="medkg")


def _report(session: Session | None, error: CommandError) -> None:
    """What went wrong, on standard error: for people, or as one JSON object with ``--json``."""
    if session is not None and session.as_json:
        faults = [fault_json(fault) for fault in error.faults]
        said = {"code": error.code, "message": error.message, "hint": error.hint, "faults": faults}
        print(to_json({"error": {name: value for name, value in said.items() if value}}), file=sys.stderr)
        return
    console = session.err if session is not None else open_console(stderr=True)
    text = Text.assemble(("error", "bold red"), f": {clean(error.message, keep_lines=True)}")
    if error.code:
        text.append(f"  [{clean(error.code)}]", "dim")
    console.print(text, soft_wrap=True)
    for fault in error.faults:
        console.print(Text("  ").append_text(fault_text(fault)), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("hint", "bold cyan"), f": {clean(error.hint)}"), soft_wrap=True)


def _silence_output() -> None:
    """Nobody reads any more: what is still buffered must not raise again when the interpreter flushes it."""
    with open(os.devnull, "w") as nothing:  # noqa: PTH123  os.devnull is no path to look at
        os.dup2(nothing.fileno(), sys.stdout.fileno())
