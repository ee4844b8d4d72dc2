"""A PDF parser in the place of MinerU: one request in, one document into the blob store, one word in the ledger."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys

from medkg.contracts.pdf import parsed_file_path, read_pdf_request
from medkg.runtime.blobs import BlobStore, open_blobs
from medkg.storage.engine import Engine, open_engine
from medkg.storage.parsed_files import ParsedFile, file_failed, file_parsed

PARSER, VERSION = "pdftotext", "1"


def read(pdf: bytes) -> list[str]:
    """The text of each page, by poppler's pdftotext."""
    command = ["/usr/bin/env", "pdftotext", "-", "-"]
    done = subprocess.run(command, input=pdf, capture_output=True, check=True)  # noqa: S603  nothing from outside
    return done.stdout.decode().split("\f")


async def answer(value: bytes, blobs: BlobStore, engine: Engine) -> int:
    """Parse what a message of mineru.queue.v1 asks for. Returns how many documents go on, or fail, because of it."""
    request = read_pdf_request(value)
    tenant, sha256 = request.tenant_id, request.file.sha256
    try:
        pages = read(await blobs.get(request.file.key) or b"")
    except (OSError, subprocess.CalledProcessError) as error:
        why = ParsedFile(tenant, sha256, PARSER, VERSION, failure_code="payload_malformed", failure_message=str(error))
        return await file_failed(engine, why)
    blocks = [
        {"block_id": f"s0.{n}", "text": page, "provenance": {"record": f"sha256:{sha256}", "page": n + 1}}
        for n, page in enumerate(pages)
    ]
    section = {"section_id": "s0", "path": [], "blocks": blocks}
    empty = {"doc_id": "", "source": "", "source_id": ""}  # whoever goes on with it lends it its own
    data = json.dumps(empty | {"kind": "article", "title": "", "sections": [section]}).encode()
    key = parsed_file_path(tenant, sha256, PARSER, VERSION)
    await blobs.put(key, data)  # first the document, then the word
    digest = hashlib.sha256(data).hexdigest()
    return await file_parsed(engine, ParsedFile(tenant, sha256, PARSER, VERSION, key, digest, len(data)))


if __name__ == "__main__":  # kcat -C -b … -t mineru.queue.v1 -o beginning -c 1 | python plain_parser.py
    stores = open_blobs(os.environ["MEDKG_BLOBS_URL"]), open_engine(os.environ["MEDKG_DATABASE_URL"])
    sys.stdout.write(f"{asyncio.run(answer(sys.stdin.buffer.read(), *stores))} documents go on\n")
