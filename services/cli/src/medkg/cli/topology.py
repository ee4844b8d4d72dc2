"""`medkg topology`: check, draw and describe pipelines. Works on files; no fleet is needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from medkg.cli.exits import Exit, NotFound, UsageProblem
from medkg.cli.session import JsonFlag, Session, session_of
from medkg.cli.terminal import clean, count
from medkg.contracts.errors import PipelineConfigError, SourceFault
from medkg.contracts.topology import Policies, Topology
from medkg.contracts.topology_drawing import as_svg, as_text
from medkg.contracts.topology_source import read_policies, read_topology
from medkg.runtime.topologies import TopologyLoader, default_topologies_dir
from medkg.runtime.topology_files import POLICIES_FILE, read_text

CHECK_EXAMPLES = """\
[bold]Examples[/bold]
  medkg topology check
  medkg topology check my-pipeline.yaml
  medkg topology check --json | jq '.files[] | select(.faults != [])'

A file is checked with the resilience.yaml beside it, or else with that of the topologies folder."""
SHOW_EXAMPLES = """\
[bold]Examples[/bold]
  medkg topology show auto
  medkg topology show ./my-pipeline.yaml --svg my-pipeline.svg
  medkg topology show auto --json | jq '.stages[].name'"""
SCHEMA_EXAMPLES = """\
[bold]Examples[/bold]
  medkg topology schema > topology.schema.json
  medkg topology schema --policies"""
EXAMPLES = """\
[bold]Examples[/bold]
  medkg topology check
  medkg topology show auto
  medkg topology schema > topology.schema.json"""

app = typer.Typer(help="Check, draw and describe pipelines; needs no fleet.", epilog=EXAMPLES, no_args_is_help=True)

FolderFlag = Annotated[
    Path | None,
    typer.Option(
        "--topologies",
        metavar="DIR",
        help="The folder of the pipelines.",
        show_default="MEDKG_TOPOLOGIES_DIR, ./topologies",
    ),
]


@dataclass(frozen=True, slots=True)
class Checked:
    """A file, and what it holds or what is wrong with it. ``about`` are faults that have no place in it."""

    file: str
    holds: Topology | Policies | None = None
    faults: tuple[SourceFault, ...] = ()
    about: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.faults and not self.about


@app.command("check", epilog=CHECK_EXAMPLES)
def check(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Files to check.", show_default="the whole folder")
    ] = None,
    topologies: FolderFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Check pipelines and policies; every fault comes with its file, line and column."""
    session = session_of(ctx, as_json)
    checked = [check_file(path, topologies) for path in files] if files else check_folder(_folder(topologies))
    if as_json:
        session.emit({"files": [_as_json(each) for each in checked]})
    else:
        for each in checked:
            _print(session, each)
    if not all(each.is_good for each in checked):
        raise typer.Exit(Exit.FAILED)


@app.command("show", epilog=SHOW_EXAMPLES)
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pipeline's name, or the path of its file.")],
    topologies: FolderFlag = None,
    version: Annotated[str | None, typer.Option("--version", metavar="N.N", help="An older version of it.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw it into an SVG file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw a pipeline in the terminal, or as SVG."""
    session = session_of(ctx, as_json)
    found = _find(name, topologies, version)
    topology = found.holds
    if isinstance(topology, Policies):
        raise UsageProblem(f"{name} holds policies, there is nothing to draw: see `medkg topology check {name}`")
    if topology is None:
        _print(session, found)
        raise typer.Exit(Exit.FAILED)
    if svg is not None:
        try:
            svg.write_text(as_svg(topology), encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"writing {svg}: {error.strerror or error}") from error
    if as_json:
        session.emit(json.loads(topology.canonical_json) | {"digest": topology.digest})
        return
    session.show(Text(as_text(topology, session.out.width)), Text(f"digest {topology.digest[:12]}", "dim"))
    if svg is not None:
        session.show(Text(f"drawn into {svg}", "dim"), soft_wrap=True)


@app.command("schema", epilog=SCHEMA_EXAMPLES)
def schema(
    ctx: typer.Context,
    policies: Annotated[bool, typer.Option("--policies", help=f"That of {POLICIES_FILE} instead.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the JSON Schema of a pipeline; --json puts it on one line."""
    session = session_of(ctx, as_json)
    described = (Policies if policies else Topology).model_json_schema(by_alias=True)
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | described
    if as_json:
        session.emit(described)
    else:
        session.show(Text(json.dumps(described, indent=2)), soft_wrap=True)


def check_file(path: Path, topologies: Path | None) -> Checked:
    """One topology, or a resilience.yaml, by itself.

    Raises:
        UsageProblem: there is no such file.
    """
    if not path.is_file():
        raise UsageProblem(f"there is no file {path}", hint="without a FILE the whole topologies folder is checked")
    shown = str(path)
    try:
        text = read_text(path, shown)
        if path.name == POLICIES_FILE:
            return Checked(shown, read_policies(text, shown))
        return Checked(shown, read_topology(text, shown, _policies_for(path, topologies)))
    except PipelineConfigError as error:
        return Checked(shown, None, error.faults, () if error.faults else (error.message,))


def check_folder(folder: Path) -> list[Checked]:
    """Everything in force in a folder, and everything that is wrong there, in the order of the file names."""
    loader = TopologyLoader(folder, check_seconds=0)
    wrong: dict[str, Checked] = {}
    for problem in loader.problems():
        before = wrong.get(problem.file, Checked(problem.file))
        about = before.about if problem.faults else (*before.about, problem.message)
        wrong[problem.file] = Checked(problem.file, None, before.faults + problem.faults, about)
    good = {f"{name}.yaml": Checked(f"{name}.yaml", loader.get(name)) for name in loader.names()}
    if POLICIES_FILE not in wrong:
        good[POLICIES_FILE] = Checked(POLICIES_FILE, loader.policies())
    return [found for _, found in sorted((good | wrong).items())]


def _policies_for(path: Path, topologies: Path | None) -> Policies:
    beside = path.with_name(POLICIES_FILE)
    file = beside if topologies is None and beside.is_file() else _folder(topologies) / POLICIES_FILE
    return read_policies(read_text(file, str(file)), str(file))


def _folder(given: Path | None) -> Path:
    if given is not None and not given.is_dir():
        raise UsageProblem(f"--topologies: {given} is not a folder")
    return given or default_topologies_dir()


def _find(name: str, topologies: Path | None, version: str | None) -> Checked:
    """A topology by its file or by its name."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return check_file(Path(name), topologies)
    loader = TopologyLoader(_folder(topologies), check_seconds=0)
    try:
        return Checked(f"{name}.yaml", loader.get(name, version))
    except PipelineConfigError as error:
        if error.faults:
            return Checked(f"{name}.yaml", None, error.faults)
        raise NotFound(error.message, code=error.code) from error


def _print(session: Session, checked: Checked) -> None:
    for fault in checked.faults:
        place = f"{clean(fault.file)}:{fault.line}:{fault.column}"
        text = Text.assemble(("✗ ", "bold red"), (place, "bold"), f": {clean(fault.message)}")
        session.show(text.append(f"  ({clean(fault.hint)})" if fault.hint else "", "dim"), soft_wrap=True)
    for message in checked.about:
        session.show(Text.assemble(("✗ ", "bold red"), clean(message)), soft_wrap=True)
    if checked.is_good:
        text = Text.assemble(("✓ ", "bold green"), (clean(checked.file), "bold"))
        session.show(text.append(f"  {_described(checked)}", "dim"), soft_wrap=True)


def _described(checked: Checked) -> str:
    if isinstance(checked.holds, Topology):
        topology = checked.holds
        return f"{topology.name} {topology.version}, {count(len(topology.stages), 'stage')}, {topology.digest[:12]}"
    return count(len(checked.holds.policies), "policy", "policies") if checked.holds is not None else ""


def _as_json(checked: Checked) -> dict[str, object]:
    faults: list[dict[str, object]] = [
        {"line": fault.line, "column": fault.column, "message": fault.message, "hint": fault.hint}
        for fault in checked.faults
    ]
    faults += [{"message": message} for message in checked.about]
    found: dict[str, object] = {"file": checked.file, "faults": faults}
    if isinstance(checked.holds, Topology):
        found |= {"name": checked.holds.name, "version": checked.holds.version, "digest": checked.holds.digest}
    return found
