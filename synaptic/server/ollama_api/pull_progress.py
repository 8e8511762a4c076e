"""``/api/pull``: the one model that can be fetched, told in Ollama's words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.messages import BackendProgress
from synaptic.server.ollama_api.refusals import SERVER_ERROR, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.messages import BackendReport
    from synaptic.models import ModelStore
    from synaptic.server.ollama_api.replies import Json

SHORT_DIGEST = 12  # hexadecimal digits that the status shows


async def pull_lines(store: ModelStore, name: str | None) -> AsyncGenerator[Json, None]:
    """Yield the progress of fetching the model; closing this ends the fetch.

    Args:
        store: Where the model goes.
        name: The model; ``None`` for one that cannot be fetched.

    Raises:
        Refusal: If there is no such model.
        DownloadError: If it cannot be fetched.
    """
    yield {"status": "pulling manifest"}
    if name is None:
        raise Refusal(SERVER_ERROR, "pull model manifest: file does not exist")
    artifact = store.artifact
    layer = {"status": f"pulling {artifact.sha256[:SHORT_DIGEST]}", "digest": f"sha256:{artifact.sha256}"}
    if not store.has_model():
        reports: asyncio.Queue[BackendReport | None] = asyncio.Queue()
        task = asyncio.create_task(store.pull(reports.put_nowait))
        task.add_done_callback(lambda _: reports.put_nowait(None))
        try:
            while (report := await reports.get()) is not None:
                if isinstance(report, BackendProgress):
                    yield {**layer, "total": report.total, "completed": report.done}
            await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
    yield {**layer, "total": artifact.file_bytes, "completed": artifact.file_bytes}
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    yield {"status": "success"}
