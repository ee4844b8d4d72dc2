"""One reading of a topologies folder: what is in force from now on, and what was refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from medkg.contracts.errors import PipelineConfigError, SourceFault
from medkg.contracts.topology import Policies, StageDefinition, Topology
from medkg.contracts.topology_source import read_policies, read_topology
from medkg.runtime.topology_choice import dispute, disputes
from medkg.runtime.topology_files import POLICIES_FILE, Signature, read_text


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in the folder now. ``in_force`` says what is used instead; empty where there is nothing."""

    file: str
    message: str
    in_force: str = ""
    faults: tuple[SourceFault, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderState:
    """One consistent reading of the folder. Replaced whole, never changed."""

    signatures: Mapping[str, Signature] = field(default_factory=lambda: MappingProxyType({}))
    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # of what is in force
    policies: Policies | None = None
    topologies: Mapping[str, Topology] = field(default_factory=lambda: MappingProxyType({}))
    problems: tuple[Problem, ...] = ()


def read_named(text: str, file: str, name: str, policies: Policies) -> Topology:
    """The topology of a file, which has to have the file's name.

    Raises:
        PipelineConfigError: with every fault.
    """
    topology = read_topology(text, file, policies)
    if topology.name != name:
        fault = SourceFault(file, 1, 1, f"the topology is named {topology.name!r}; a file has the name of its topology")
        raise PipelineConfigError(str(fault), faults=(fault,))
    return topology


class FolderReading:
    """One reading of a changed folder: decides, file by file and then together, what is in force from now on."""

    def __init__(self, directory: Path, old: FolderState, signatures: dict[str, Signature]) -> None:
        self._directory = directory
        self._old = old
        self._signatures = signatures
        self._texts: dict[str, str] = {}
        self._problems: list[Problem] = []

    def state(self) -> FolderState:
        """What is in force after this reading."""
        policies = self._policies()
        if policies is None:
            return self._result(None, {})
        topologies = self._topologies(policies)
        stranded = _stranded(topologies, policies)
        if stranded and self._old.policies is not None:
            self._refuse(POLICIES_FILE, f"{POLICIES_FILE}: {stranded}", "the policies before")
            self._texts.pop(POLICIES_FILE, None)
            policies = self._old.policies
            self._problems = [problem for problem in self._problems if problem.file == POLICIES_FILE]
            topologies = self._topologies(policies)
        return self._result(policies, self._undisputed(topologies))

    def _policies(self) -> Policies | None:
        old = self._old.policies
        in_force = "the policies before" if old is not None else ""
        if POLICIES_FILE not in self._signatures:
            self._refuse(POLICIES_FILE, f"{POLICIES_FILE}: is not there, so no stage has a policy", in_force)
            return old
        try:
            text = read_text(self._directory / POLICIES_FILE, POLICIES_FILE)
            if old is not None and text == self._old.texts.get(POLICIES_FILE):
                self._texts[POLICIES_FILE] = text
                return old
            read = read_policies(text, POLICIES_FILE)
        except PipelineConfigError as error:
            self._refuse(POLICIES_FILE, error.message, in_force, error.faults)
            return old
        self._texts[POLICIES_FILE] = text
        return old if old == read else read

    def _topologies(self, policies: Policies) -> dict[str, Topology]:
        found: dict[str, Topology] = {}
        for file in self._signatures:
            if file == POLICIES_FILE:
                continue
            name = file.removesuffix(".yaml")
            old = self._old.topologies.get(name)
            try:
                found[name] = self._topology(file, name, policies)
            except PipelineConfigError as error:
                self._refuse(file, error.message, f"{old.name} {old.version}" if old else "", error.faults)
                if old is not None:
                    found[name] = old
        return found

    def _topology(self, file: str, name: str, policies: Policies) -> Topology:
        text = read_text(self._directory / file, file)
        old = self._old.topologies.get(name)
        if old is not None and text == self._old.texts.get(file) and not _stranded({name: old}, policies):
            self._texts[file] = text
            return old
        topology = read_named(text, file, name, policies)
        self._texts[file] = text
        return old if old is not None and old.digest == topology.digest else topology

    def _undisputed(self, topologies: dict[str, Topology]) -> dict[str, Topology]:
        """Without the changes that make two topologies claim the same source; what was so from the start stays."""
        old = self._old.topologies
        while True:
            found = disputes(topologies.values())
            changed = sorted({t.name for each in found.values() for t in each if t is not old.get(t.name)})
            if not old or not changed:
                break
            for name in changed:
                source = next(source for source, each in found.items() if topologies[name] in each)
                self._refuse(f"{name}.yaml", f"{name}.yaml: {dispute(source, found[source])}", _shown(old.get(name)))
                self._texts.pop(f"{name}.yaml", None)
                if name in old:
                    topologies[name] = old[name]
                else:
                    del topologies[name]
        for source, each in found.items():
            self._refuse(f"{each[0].name}.yaml", dispute(source, each))
        return topologies

    def _refuse(self, file: str, message: str, in_force: str = "", faults: tuple[SourceFault, ...] = ()) -> None:
        self._problems.append(Problem(file, message, in_force, faults))

    def _result(self, policies: Policies | None, topologies: dict[str, Topology]) -> FolderState:
        return FolderState(
            MappingProxyType(self._signatures),
            MappingProxyType(self._texts),
            policies,
            MappingProxyType(topologies),
            tuple(self._problems),
        )


def _shown(topology: Topology | None) -> str:
    return f"{topology.name} {topology.version}" if topology else ""


def _stranded(topologies: Mapping[str, Topology], policies: Policies) -> str:
    """A topology that needs a policy that is not there, in words; empty if there is none."""
    for name, topology in topologies.items():
        for stage in topology.stages:
            if isinstance(stage, StageDefinition) and stage.policy not in policies.policies:
                return f"the policy {stage.policy!r} is gone, but stage {stage.name!r} of {name}.yaml has it"
    return ""
