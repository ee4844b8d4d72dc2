"""Which implementations there are, and which of them are open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from tests.unit.runtime.stage_kit import Told, ToldOnAThread, implementation

from medkg.contracts.errors import ConfigurationError, GpuNotAvailable, PipelineConfigError, StageCrashedError
from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType
from medkg.contracts.topology import StageDefinition
from medkg.runtime import registry
from medkg.runtime.blobs import open_blobs
from medkg.runtime.registry import OpenStages, installed

STAGE = Told(lambda ctx, value: value)
SOUND = implementation(StageType.CHUNK, STAGE, name="sections")
HOST = Host(Path("/nowhere"), open_blobs("memory:"))


@dataclass(frozen=True)
class Entry:
    """An entry point: loads ``value``, or raises it."""

    name: str
    loads: object
    value: str = "some_package:SOMETHING"

    def load(self) -> object:
        if isinstance(self.loads, Exception):
            raise self.loads
        return self.loads


def offer(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    def found(*, group: str) -> tuple[Entry, ...]:
        assert group == "medkg.stages"
        return entries

    monkeypatch.setattr(registry, "entry_points", found)


def definition(**fields: Any) -> StageDefinition:
    return StageDefinition.model_validate({"name": "chunk", "type": "ChunkStage"} | fields)


def test_the_implementations_of_one_kind_of_stage_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Entry("parse.broken", ImportError("no module"))  # another service's: of no concern here
    offer(monkeypatch, Entry("chunk.sections", SOUND), broken, Entry("chunkier.other", 7))
    assert installed(StageType.CHUNK) == {"sections": SOUND}


def test_every_implementation_that_is_shipped_can_be_loaded() -> None:
    for stage_type in StageType:
        if stage_type is not StageType.GATE:
            found = installed(stage_type)
            assert [one for one in found.values() if one.is_default], stage_type


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Entry("chunk.sections", ImportError("no module named x")), "no module named x"),
        (Entry("chunk.sections", AttributeError("no attribute SOMETHING")), "no attribute SOMETHING"),
        (Entry("chunk.sections", RuntimeError("at import")), "from some_package:SOMETHING: at import"),
        (Entry("chunk.sections", object()), "some_package:SOMETHING is no ChunkStage"),
        (Entry("chunk.sections", implementation(StageType.PARSE, STAGE, name="sections")), "is no ChunkStage"),
        (Entry("chunk.other", SOUND), "it calls itself 'sections'"),
    ],
)
def test_an_entry_point_that_is_wrong_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, entry: Entry, says: str
) -> None:
    offer(monkeypatch, entry)
    with pytest.raises(PipelineConfigError, match=rf"loading implementation {entry.name}") as caught:
        installed(StageType.CHUNK)
    assert says in caught.value.message


def test_two_packages_that_give_the_same_implementation_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, Entry("chunk.sections", SOUND), Entry("chunk.sections", SOUND))
    assert installed(StageType.CHUNK) == {"sections": SOUND}
    other = implementation(StageType.CHUNK, STAGE, name="sections")
    offer(monkeypatch, Entry("chunk.sections", SOUND), Entry("chunk.sections", other))
    with pytest.raises(PipelineConfigError, match="two installed packages"):
        installed(StageType.CHUNK)


class Sized(Options):
    size: int = Field(100, ge=1)
    unit: str = "tokens"


class Shop:
    """Implementations that remember what was opened and closed."""

    def __init__(self) -> None:
        self.opened: list[Sized] = []
        self.closed: list[Sized] = []
        self.raises: Exception | None = None

    def make(self, **fields: Any) -> StageImplementation:
        @asynccontextmanager
        async def opened(options: Any, host: Host) -> AsyncIterator[Any]:
            assert host is HOST
            if self.raises is not None:
                raise self.raises
            await asyncio.sleep(0)
            self.opened.append(options)
            yield Told(lambda ctx, value: options)
            self.closed.append(options)

        base = implementation(StageType.CHUNK, STAGE, options=Sized)
        given = {name: getattr(base, name) for name in base.__slots__} | {"open": opened} | fields
        return StageImplementation(**given)


async def test_the_same_settings_are_opened_once_and_all_are_closed_together() -> None:
    shop = Shop()
    async with OpenStages({"told": shop.make()}, HOST) as stages:
        asked = [definition(), definition(), definition(**{"with": {"size": 100}}), definition(**{"with": {"size": 5}})]
        found = await asyncio.gather(*(stages.get(one) for one in asked))
        assert [await stages.get(one) for one in asked] == found
        assert found[0] is found[1] is found[2]
        assert found[3] is not found[0]
        assert [one.size for one in shop.opened] == [100, 5]
        assert shop.closed == []
        assert found[0].options == '{"size":100,"unit":"tokens"}'
        assert found[0].identity == ("ChunkStage", "told", "1")
    assert sorted(one.size for one in shop.closed) == [5, 100]


async def test_a_stage_may_be_named_and_the_default_is_used_where_none_is() -> None:
    shop = Shop()
    known = {"told": shop.make(), "other": shop.make(name="other", is_default=False)}
    async with OpenStages(known, HOST) as stages:
        assert (await stages.get(definition())).implementation.name == "told"
        assert (await stages.get(definition(uses="other"))).implementation.name == "other"
        with pytest.raises(PipelineConfigError, match=r"'gone' is not installed \(installed: other, told\)"):
            await stages.get(definition(uses="gone"))


@pytest.mark.parametrize("defaults", [[], [False], [True, True]])
async def test_without_exactly_one_default_a_stage_has_to_be_named(defaults: list[bool]) -> None:
    shop = Shop()
    known = {f"i{number}": shop.make(name=f"i{number}", is_default=is_it) for number, is_it in enumerate(defaults)}
    async with OpenStages(known, HOST) as stages:
        with pytest.raises(PipelineConfigError, match=r"no default implementation .* name one with `uses`"):
            await stages.get(definition())


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({"size": 0}, ["with.size"]),
        ({"size": "many", "unit": 3}, ["with.size", "with.unit"]),
        ({"colour": "red"}, ["with.colour"]),
    ],
)
async def test_settings_that_are_at_fault_are_all_named(settings: dict[str, Any], places: list[str]) -> None:
    async with OpenStages({"told": Shop().make()}, HOST) as stages:
        with pytest.raises(PipelineConfigError, match=r"opening stage 'chunk' \(told\)") as caught:
            await stages.get(definition(**{"with": settings}))
    assert all(f"{place}: " in caught.value.message for place in places)


async def test_the_checks_of_a_validation_are_settings_too() -> None:
    class Checked(Options):
        model_config = Options.model_config | {"extra": "allow"}

    made = implementation(StageType.VALIDATE, STAGE, options=Checked)
    wanted = StageDefinition.model_validate(
        {"name": "check", "type": "ValidateStage", "checks": {"min_characters": 40}, "with": {"min_sections": 2}}
    )
    async with OpenStages({"told": made}, HOST) as stages:
        options = (await stages.get(wanted)).options
    assert '"min_characters":40' in options
    assert '"min_sections":2' in options


@pytest.mark.parametrize("error", [GpuNotAvailable("no GPU here"), ConfigurationError("no model")])
async def test_why_a_stage_cannot_be_opened_is_said_in_its_own_words(error: Exception) -> None:
    shop = Shop()
    shop.raises = error
    async with OpenStages({"told": shop.make()}, HOST) as stages:
        with pytest.raises(type(error), match=str(error)):
            await stages.get(definition())
        shop.raises = None
        assert await stages.get(definition())  # the next document tries again


async def test_a_stage_that_crashes_while_it_is_opened_is_a_crash() -> None:
    shop = Shop()
    shop.raises = OSError("libcuda.so: not found")
    async with OpenStages({"told": shop.make()}, HOST) as stages:
        with pytest.raises(StageCrashedError, match=r"opening told: OSError: libcuda\.so: not found"):
            await stages.get(definition())


@pytest.mark.parametrize(("stage", "is_async"), [(Told, True), (ToldOnAThread, False)])
async def test_whether_a_stage_is_a_coroutine_is_seen(stage: type[Told], is_async: bool) -> None:
    made = implementation(StageType.CHUNK, stage(lambda ctx, value: value))
    async with OpenStages({"told": made}, HOST) as stages:
        assert (await stages.get(definition())).is_async == is_async
