"""Which sources a job may name here: medkg's own, and those of installed packages."""

from collections.abc import Mapping
from importlib.metadata import entry_points

from pydantic import BaseModel

from medkg.contracts.errors import ConfigurationError
from medkg.contracts.jobs import SELECTIONS
from medkg.contracts.sources import ENTRY_POINTS, SourceDefinition


def known_selections() -> Mapping[str, type[BaseModel]]:
    """What a job may select, by source. A package that registers a source is installed where jobs are admitted too.

    Raises:
        ConfigurationError: an installed package registers something that is no source.
    """
    found = dict(SELECTIONS)
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in found:
            continue
        try:
            source = entry.load()
        except ImportError as error:
            raise ConfigurationError(f"loading source {entry.name!r} from {entry.value}: {error}") from error
        if not isinstance(source, SourceDefinition) or source.name != entry.name:
            raise ConfigurationError(f"loading source {entry.name!r}: {entry.value} is no source of that name")
        found[entry.name] = source.selection
    return found
