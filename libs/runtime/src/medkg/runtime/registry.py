"""Which implementations of a kind of stage are installed, and which of them are open."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import entry_points
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from medkg.contracts.errors import MedkgError, PipelineConfigError, StageCrashedError
from medkg.contracts.implementation import ENTRY_POINTS, Host, StageImplementation
from medkg.contracts.stages import StageType
from medkg.contracts.topology import StageDefinition
from medkg.runtime.gpu import check_gpu


def installed(stage_type: StageType) -> dict[str, StageImplementation]:
    """The installed implementations of one kind of stage, by name.

    Raises:
        PipelineConfigError: an entry point cannot be loaded, or is no implementation of this kind.
    """
    found: dict[str, StageImplementation] = {}
    prefix = f"{stage_type.service}."
    for entry in entry_points(group=ENTRY_POINTS):
        if not entry.name.startswith(prefix):
            continue
        try:
            implementation = entry.load()
        except Exception as error:  # whatever somebody's module does when it is imported
            raise PipelineConfigError(f"loading implementation {entry.name} from {entry.value}: {error}") from error
        if not isinstance(implementation, StageImplementation) or implementation.stage_type is not stage_type:
            raise PipelineConfigError(f"loading implementation {entry.name}: {entry.value} is no {stage_type.value}")
        if entry.name != prefix + implementation.name:
            raise PipelineConfigError(f"loading implementation {entry.name}: it calls itself {implementation.name!r}")
        if found.setdefault(implementation.name, implementation) is not implementation:
            raise PipelineConfigError(f"loading implementation {entry.name}: two installed packages give one")
    return found


@dataclass(frozen=True, slots=True)
class OpenStage:
    """A stage ready to run. ``identity`` is (stage type, name, version), ``options`` its settings as canonical JSON."""

    implementation: StageImplementation
    identity: tuple[str, str, str]
    options: str
    stage: Any
    is_async: bool


class OpenStages:
    """Opens each combination of implementation and settings once, and closes all of them together."""

    def __init__(self, implementations: dict[str, StageImplementation], host: Host) -> None:
        self._implementations = implementations
        self._host = host
        self._open: dict[tuple[str, str], OpenStage] = {}
        self._by_definition: dict[int, tuple[StageDefinition, OpenStage]] = {}
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open_default(self) -> None:
        """Open the default implementation as it comes, so that a process without what it needs ends at once.

        Raises:
            MedkgError: it cannot be opened here (no database, no GPU, …).
        """
        if any(implementation.is_default for implementation in self._implementations.values()):
            stage_type = next(iter(self._implementations.values())).stage_type
            await self.get(StageDefinition.model_validate({"name": "default", "type": stage_type}))

    async def get(self, definition: StageDefinition) -> OpenStage:
        """The stage that a definition asks for.

        Raises:
            PipelineConfigError: no such implementation is installed, or its settings are at fault.
            GpuNotAvailable: it needs a GPU, and there is none.
            StageCrashedError: it could not be opened, and does not say why in an error of medkg's own.
        """
        known = self._by_definition.get(id(definition))
        if known is not None and known[0] is definition:
            return known[1]
        implementation = self._choose(definition)
        given = dict(definition.with_)
        if definition.checks is not None:
            given = definition.checks.model_dump() | given
        try:
            options = implementation.options.model_validate(given)
        except ValidationError as error:
            faults = "; ".join(f"with.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise PipelineConfigError(f"opening stage {definition.name!r} ({implementation.name}): {faults}") from error
        canonical = json.dumps(options.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        async with self._opening:
            opened = self._open.get((implementation.name, canonical))
            if opened is None:
                stage = await self._enter(implementation, options)
                identity = (implementation.stage_type.value, implementation.name, implementation.version)
                opened = OpenStage(implementation, identity, canonical, stage, iscoroutinefunction(stage.execute))
                self._open[implementation.name, canonical] = opened
        self._by_definition[id(definition)] = (definition, opened)
        return opened

    async def _enter(self, implementation: StageImplementation, options: BaseModel) -> Any:
        check_gpu(implementation)
        try:
            return await self._stack.enter_async_context(implementation.open(options, self._host))
        except MedkgError:
            raise
        except Exception as error:
            raise StageCrashedError(f"opening {implementation.name}: {type(error).__name__}: {error}") from error

    def _choose(self, definition: StageDefinition) -> StageImplementation:
        names = ", ".join(sorted(self._implementations)) or "none"
        if definition.uses is not None:
            chosen = self._implementations.get(definition.uses)
            if chosen is None:
                raise PipelineConfigError(
                    f"opening stage {definition.name!r}: {definition.uses!r} is not installed (installed: {names})"
                )
            return chosen
        defaults = [implementation for implementation in self._implementations.values() if implementation.is_default]
        if len(defaults) != 1:
            raise PipelineConfigError(
                f"opening stage {definition.name!r}: no default implementation (installed: {names}); "
                "name one with `uses`"
            )
        return defaults[0]
