"""The topologies of a folder, read again when they change, and those that jobs are pinned to.

A folder holds ``resilience.yaml``, one ``NAME.yaml`` for each topology, and older versions in ``versions/YYYY-MM-DD/``.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from medkg.contracts.errors import ConfigurationError, PipelineConfigError
from medkg.contracts.topology import Policies, Topology
from medkg.contracts.topology_graph import did_you_mean
from medkg.runtime.pinned_topologies import PinnedTopologies
from medkg.runtime.topology_choice import choose
from medkg.runtime.topology_files import POLICIES_FILE, Signature, list_files, older_versions, read_text, signature_of
from medkg.runtime.topology_reading import FolderReading, FolderState, Problem, read_named

__all__ = ["PinnedTopologies", "Problem", "TopologyLoader", "default_topologies_dir"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z-]{1,63}")


def default_topologies_dir() -> Path:
    """``MEDKG_TOPOLOGIES_DIR``, else ``./topologies``, else the folder of the checkout that this code runs from.

    Raises:
        ConfigurationError: there is no such folder.
    """
    named = os.environ.get("MEDKG_TOPOLOGIES_DIR", "")
    if named:
        if Path(named).is_dir():
            return Path(named)
        raise ConfigurationError(f"looking for topologies: MEDKG_TOPOLOGIES_DIR is {named!r}, which is not a folder")
    for folder in (Path.cwd(), *Path(__file__).resolve().parents):
        if (folder / "topologies" / POLICIES_FILE).is_file():
            return folder / "topologies"
    raise ConfigurationError(
        f"looking for topologies: there is no ./topologies/{POLICIES_FILE} here; "
        "set MEDKG_TOPOLOGIES_DIR to the folder that holds them"
    )


class TopologyLoader:
    """The topologies and policies of a folder, always valid, always consistent with each other.

    The same name gives the same instance until its file changes. Changes are looked for on access, at most every
    ``check_seconds``; a changed file is validated first and swapped whole, or refused with the old one still in force
    and the refusal kept in :meth:`problems`. Safe to use from several threads.
    """

    def __init__(
        self, directory: Path, *, check_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._check_seconds = check_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_at: float | None = None
        self._state = FolderState()
        self._older: dict[Path, tuple[Signature, Policies, Topology]] = {}

    def get(self, name: str, version: str | None = None) -> Topology:
        """A topology by name; with ``version``, that one, from ``versions/`` if it is not the current one.

        Raises:
            PipelineConfigError: there is none, or its file is at fault and never was in order.
            ConfigurationError: the folder cannot be read.
        """
        if not _NAME.fullmatch(name):
            raise PipelineConfigError(
                f"looking for a topology: {name[:80]!r} is not a name: lower-case letters and '-'"
            )
        state, policies = self._usable()
        current = state.topologies.get(name)
        if current is not None and version in (None, current.version):
            return current
        if version is not None:
            return self._older_version(state, policies, name, version)
        for problem in state.problems:
            if problem.file == f"{name}.yaml":
                raise PipelineConfigError(problem.message, faults=problem.faults)
        raise PipelineConfigError(
            f"looking for the topology {name!r}: there is no {name}.yaml; {did_you_mean(name, list(state.topologies))}"
        )

    def resolve(self, source: str) -> Topology:
        """The topology that the records of a source take when a job names none, see :mod:`topology_choice`.

        Raises:
            PipelineConfigError: no topology takes the source, or several have the same claim.
            ConfigurationError: the folder cannot be read.
        """
        return choose(self._usable()[0].topologies.values(), source)

    def policies(self) -> Policies:
        """The policies in force.

        Raises:
            PipelineConfigError: resilience.yaml is at fault and never was in order.
            ConfigurationError: the folder cannot be read.
        """
        return self._usable()[1]

    def names(self) -> tuple[str, ...]:
        """The names of all topologies in force, sorted."""
        return tuple(sorted(self._current().topologies))

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong in the folder now; empty when all is well."""
        return self._current().problems

    def _usable(self) -> tuple[FolderState, Policies]:
        state = self._current()
        if state.policies is None:
            raise PipelineConfigError(state.problems[0].message, faults=state.problems[0].faults)
        return state, state.policies

    def _current(self) -> FolderState:
        with self._lock:
            now = self._clock()
            if self._checked_at is None or now - self._checked_at >= self._check_seconds:
                self._check()
                self._checked_at = now
            return self._state

    def _check(self) -> None:
        try:
            signatures = list_files(self._directory)
        except OSError as error:
            message = f"reading the topologies in {self._directory}: {error.strerror or error}"
            if self._state.policies is None:
                raise ConfigurationError(
                    f"{message}; set MEDKG_TOPOLOGIES_DIR to the folder that holds them"
                ) from error
            problem = Problem(str(self._directory), message, "what was read before")
            # No signatures: whatever the folder holds when it is back is read again.
            self._swap(replace(self._state, signatures=MappingProxyType({}), problems=(problem,)))
            return
        if self._checked_at is None or signatures != self._state.signatures:
            self._swap(FolderReading(self._directory, self._state, signatures).state())

    def _swap(self, state: FolderState) -> None:
        for problem in state.problems:
            if problem not in self._state.problems:
                log.error("topologies: %s (in force: %s)", problem.message, problem.in_force or "nothing")
        self._state = state

    def _older_version(self, state: FolderState, policies: Policies, name: str, version: str) -> Topology:
        found = [state.topologies[name].version] if name in state.topologies else []
        broken: list[PipelineConfigError] = []
        for path in older_versions(self._directory, name):
            try:
                topology = self._read_older(path, name, policies)
            except PipelineConfigError as error:
                broken.append(error)
                continue
            if topology.version == version:
                return topology
            found.append(topology.version)
        faults = [fault for error in broken for fault in error.faults]
        lines = [f"looking for the topology {name!r}: no version {version[:40]!r}; {did_you_mean(version, found)}"]
        raise PipelineConfigError("\n".join([*lines, *(error.message for error in broken)]), faults=faults)

    def _read_older(self, path: Path, name: str, policies: Policies) -> Topology:
        signature = signature_of(path) or (0, 0, 0, 0)
        cached = self._older.get(path)
        if cached is not None and cached[0] == signature and cached[1] is policies:
            return cached[2]
        shown = str(path.relative_to(self._directory))
        topology = read_named(read_text(path, shown), shown, name, policies)
        self._older[path] = (signature, policies, topology)
        return topology
