"""The sizes of a PDF's pages, where MinerU does not say them: read by PDFium in a process that is not trusted.

Boxes in ``content_list`` are thousandths of a page; only with its size do they become points.
"""

import asyncio
import sys
from contextlib import suppress

import msgspec

from medkg.mineru.mapping.pieces import Sizes

_SECONDS = 20.0
_MEMORY_BYTES = 1 << 30
_MAX_PAGES = 5_000
_MAX_ANSWER = 1_000_000


async def page_sizes_of(data: bytes) -> Sizes:
    """Width and height of every page, in points; empty where they cannot be read (blocks then have no box)."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_SECONDS):
            said, _ = await process.communicate(data)
        found = msgspec.json.decode(said[:_MAX_ANSWER], type=list[tuple[float, float]])
    except (TimeoutError, OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return {number: size for number, size in enumerate(found, start=1) if min(size) > 0 and max(size) < 1e6}


def main() -> None:
    """Read a PDF from standard input, write the sizes of its pages as JSON."""
    import pypdfium2 as pdfium

    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (int(_SECONDS), int(_SECONDS)))
    document = pdfium.PdfDocument(sys.stdin.buffer.read())
    sizes = [document.get_page_size(number) for number in range(min(len(document), _MAX_PAGES))]
    sys.stdout.buffer.write(msgspec.json.encode(sizes))


if __name__ == "__main__":
    main()
