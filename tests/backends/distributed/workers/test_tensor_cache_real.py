"""The tensor cache with real servers: it saves what it should, and nothing that happens to a file changes an answer."""

import os
import resource
import sys
from pathlib import Path

import psutil
import pytest
from managed_worker_support import counting, greedy_text, installed_engine, managed, until  # noqa: F401 - a fixture

from synaptic import paths
from synaptic.backends.distributed.engine.engine import Engine
from synaptic.backends.distributed.workers import managed as managed_worker
from synaptic.backends.distributed.workers.tensor_cache import TensorCache
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore
from synaptic.models.gguf_file import large_tensors

pytestmark = pytest.mark.real_model

EMBEDDINGS = 30 << 20
"""Less than the one tensor of the small model that is larger than 10 MiB; it is the head, too."""


@pytest.fixture(name="model")
async def the_model() -> Path:
    return await ModelStore().ensure(ignore_report)


def view_of(name: str) -> Path:
    return paths.tensor_cache_dir() / "views" / f"{name}-1" / "rpc"


def cached_files(name: str = "test") -> list[Path]:
    return sorted(view_of(name).iterdir())


async def test_a_second_start_sends_less_and_says_the_same(engine: Engine, model: Path):
    async with managed(engine, cache_dir=paths.tensor_cache_dir()) as worker:
        assert "--cache" in psutil.Process(worker.pid).cmdline()
        async with counting(worker.endpoint) as cold:
            text = await greedy_text(engine, model, cold.endpoint)
    async with (
        managed(engine, cache_dir=paths.tensor_cache_dir()) as worker,
        counting(worker.endpoint) as warm,
    ):
        assert await greedy_text(engine, model, warm.endpoint) == text
    assert text.strip()
    assert cold.sent - warm.sent > EMBEDDINGS * 0.9
    async with managed(engine) as worker, counting(worker.endpoint) as uncached:
        assert "--cache" not in psutil.Process(worker.pid).cmdline()
        assert await greedy_text(engine, model, uncached.endpoint) == text
    assert abs(uncached.sent - cold.sent) < EMBEDDINGS / 10


async def test_a_start_that_waits_for_the_cache_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(managed_worker, "SLOW_SECONDS", 0.0)  # what takes longer takes gigabytes
    notices: list[str] = []
    async with managed(engine, cache_dir=paths.tensor_cache_dir(), report=lambda one: notices.append(str(one))):
        assert any("verifies" in notice for notice in notices)


async def test_a_prefilled_cache_makes_the_first_start_send_less(engine: Engine, model: Path):
    cache = TensorCache(paths.tensor_cache_dir())
    added = cache.prefill(large_tensors([model]))
    assert added > EMBEDDINGS * 0.9
    async with managed(engine, cache_dir=paths.tensor_cache_dir()) as worker, counting(worker.endpoint) as counter:
        await greedy_text(engine, model, counter.endpoint)
        assert {file.name for file in cached_files()} == cache.names(), "the engine names them as we do"
        assert counter.sent < model.stat().st_size - added * 0.9


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flipped(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(1_000_000)
        byte = stream.read(1)[0]
        stream.seek(1_000_000)
        stream.write(bytes([byte ^ 0x40]))


def emptied(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [truncated, flipped, emptied])
async def test_a_file_that_was_damaged_changes_no_answer(engine: Engine, model: Path, damage):
    async with managed(engine, cache_dir=paths.tensor_cache_dir()) as worker:
        text = await greedy_text(engine, model, worker.endpoint)
        (file,) = cached_files()
        # While it runs: a coordinator that starts now has it looked at first.
        damage(file)
        await worker.check_cache()
        assert cached_files() == []
        assert await greedy_text(engine, model, worker.endpoint) == text
        (file,) = cached_files()
    (file,) = cached_files()
    file.chmod(0o644)
    damage(file)
    async with managed(engine, cache_dir=paths.tensor_cache_dir()) as worker:
        assert cached_files() == []
        assert await greedy_text(engine, model, worker.endpoint) == text


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of another process are Linux's")
async def test_a_full_disk_breaks_nothing(engine: Engine, model: Path, monkeypatch: pytest.MonkeyPatch):
    """The server does not notice that it could not write the whole file."""
    monkeypatch.setattr(managed_worker, "CACHE_SECONDS", 0.1)
    async with managed(engine) as worker:
        text = await greedy_text(engine, model, worker.endpoint)
    async with managed(engine, cache_dir=paths.tensor_cache_dir()) as worker:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (12 << 20, 12 << 20))
        assert await greedy_text(engine, model, worker.endpoint) == text
        assert worker.generation == 1
        (short,) = cached_files()
        assert short.stat().st_size <= 12 << 20
        await worker.check_cache()
        assert cached_files() == []
        assert await greedy_text(engine, model, worker.endpoint) == text
        # What takes care of the cache by itself finds it, too.
        await until(lambda: cached_files() == [])
    assert TensorCache(paths.tensor_cache_dir()).names() == frozenset()


async def test_what_a_worker_that_runs_on_has_written_comes_into_the_store(
    engine: Engine, model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(managed_worker, "CACHE_SECONDS", 0.1)
    async with managed(engine, cache_dir=paths.tensor_cache_dir()) as worker:
        await greedy_text(engine, model, worker.endpoint)
        cache = TensorCache(paths.tensor_cache_dir())
        await until(lambda: len(cache.names()) == 1)
        async with managed(engine, cache_dir=paths.tensor_cache_dir(), name="second"):
            assert {file.name for file in cached_files("second")} == cache.names()


async def test_a_cache_that_cannot_be_is_told_and_done_without(engine: Engine):
    said: list[object] = []
    paths.tensor_cache_dir().write_text("a file is in the way")
    async with managed(engine, cache_dir=paths.tensor_cache_dir(), report=said.append) as worker:
        assert "--cache" not in psutil.Process(worker.pid).cmdline()
        assert "keeps no tensors on disk" in said[0].message
        await worker.check_cache()

    paths.tensor_cache_dir().unlink()
    async with managed(engine, cache_dir=paths.tensor_cache_dir(), cache_bytes=0) as worker:
        assert "--cache" not in psutil.Process(worker.pid).cmdline()
