"""Which task of MinerU's a file is in: kept in the blob store, so that a restarted service goes on with it."""

from typing import Protocol

import msgspec

from medkg.contracts.ids import stable_id


class NoteStore(Protocol):
    async def get(self, key: str) -> bytes | None: ...

    async def replace(self, key: str, data: bytes) -> None: ...


class TaskNotes:
    """Notes for one MinerU server: another one knows nothing of its tasks."""

    def __init__(self, store: NoteStore, server: str) -> None:
        self._store = store
        self._server = server

    async def find(self, key: str) -> str:
        """The task that a file was last given to; empty where there is none."""
        data = await self._store.get(self._path(key))
        try:
            return "" if data is None else msgspec.json.decode(data, type=str)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return ""

    async def keep(self, key: str, task_id: str) -> None:
        """Note a task; empty: there is none any more."""
        await self._store.replace(self._path(key), msgspec.json.encode(task_id))

    def _path(self, key: str) -> str:
        identity = stable_id("mineru-task", self._server, key)
        return f"mineru/tasks/{identity[:2]}/{identity}.json"
