"""The extract service: what it offers, and how it is started."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from medkg.contracts.implementation import Host, Options, StageImplementation
from medkg.contracts.stages import StageType

PACKAGED, NONE = "packaged", "none"


class RegistryOptions(Options):
    """Settings of ``extract.registry``."""

    dictionary: str = Field(
        PACKAGED,
        min_length=1,
        max_length=4096,
        description="'packaged', 'none' (only a record's own descriptors), or the path of a dictionary file",
    )
    dictionary_sha256: str = Field(
        "", pattern=r"^([0-9a-f]{64})?$", description="digest of the file; a path needs it, so that results are pinned"
    )


@asynccontextmanager
async def _open(options: RegistryOptions, host: Host) -> AsyncIterator[object]:
    from pathlib import Path

    from medkg.extract.dictionary import Dictionary, load_dictionary, packaged_dictionary
    from medkg.extract.stage import RegistryExtractor

    if options.dictionary == PACKAGED:
        dictionary = packaged_dictionary()
    elif options.dictionary == NONE:
        dictionary = Dictionary(())
    else:
        dictionary = load_dictionary(Path(options.dictionary), options.dictionary_sha256)
    yield RegistryExtractor(dictionary)


REGISTRY = StageImplementation(
    stage_type=StageType.EXTRACT,
    name="registry",
    version="1",
    options=RegistryOptions,
    open=_open,
    is_default=True,
    in_python=True,
)


def main() -> None:
    """Entry point of ``medkg-extract`` and ``python -m medkg.extract``."""
    from medkg.runtime.process import serve

    serve(StageType.EXTRACT)
