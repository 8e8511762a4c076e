"""A byte changes on the disk, in each kind of file that is read back: nothing is ever used as if it had not.

What a place gives is either what it gave before, or less (a cache that forgets), or an error that says so.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from engine_support import REAL_ENGINES, real_files
from flipped_bytes import flip_byte, settle

from synaptic import paths
from synaptic.backends import backend_kind
from synaptic.backends.distributed.engine import current_engine
from synaptic.backends.distributed.workers import Endpoint, ProtocolVersion, TensorCache, recall, remember
from synaptic.backends.distributed.workers.probe import Device, WorkerFacts
from synaptic.errors import SynapticError
from synaptic.messages import ignore_report
from synaptic.models import ModelStore
from synaptic.models.download import SMOLLM2
from synaptic.processes import sha256_of
from synaptic.runtime.journal import Journal
from synaptic.runtime.policies.reply_store import ReplyStore, StoredReply
from synaptic.runtime.session import Session
from synaptic.settings import Settings, load_settings
from synaptic.settings.trusted import trust_folder, trusted_folders

pytestmark = pytest.mark.real_model

Facts: TypeAlias = "frozenset[tuple[str, object]]"
"""All that is used of a place, each under a name."""
Place: TypeAlias = "tuple[Path, int, int]"
"""A file, where in it, and which bits."""

WORKER: Final = Endpoint("10.0.0.4", 50052)
TEXT: Final = "The answer is forty-two, and nothing else. " * 40


def spread(file: Path, count: int, bits: int = 0x01) -> list[Place]:
    """Return places all over a file, the first and the last byte among them."""
    size = file.stat().st_size
    return [(file, number * (size - 1) // (count - 1), bits) for number in range(count)]


def within(file: Path, *words: str, bits: int = 0x01) -> list[Place]:
    """Return the place of the first letter of each word."""
    content = file.read_bytes()
    return [(file, content.index(word.encode()), bits) for word in words]


def model(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    """The beginning of the real one, which is read in no time, pinned as that is."""
    with ModelStore().path.open("rb") as real:
        content = real.read(1 << 20)
    digest = hashlib.sha256(content).hexdigest()
    store = ModelStore(home, artifact=replace(SMOLLM2, file_bytes=len(content), sha256=digest))
    store.path.write_bytes(content)

    def use() -> Facts:
        return frozenset({("model", asyncio.run(store.ensure(ignore_report)).read_bytes())})

    return spread(store.path, 6), use


def tensors(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    cache = TensorCache(paths.tensor_cache_dir())
    cache.prefill([("part", 0, (10 << 20) + 4096, ModelStore().path)])  # as small as one that is kept may be
    [name, *_] = sorted(cache.names())

    def use() -> Facts:
        view = cache.open_view("worker")
        try:
            assert view.prepare()
            seen = sorted((view.directory / "rpc").iterdir())
            return frozenset((file.name, sha256_of(file)) for file in seen)
        finally:
            view.release()

    store = paths.tensor_cache_dir() / "store"
    return [*spread(store / name, 3), *within(store / "manifest.json", name)], use


def engine(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    real = real_files().directory
    here = paths.engine_dir() / real.relative_to(REAL_ENGINES)
    shutil.copytree(real, here)

    def use() -> Facts:
        found = asyncio.run(current_engine())
        files = {(file.name, sha256_of(file)) for file in found.files.everything}
        return frozenset({*files, ("facts", found.facts), ("identity", found.identity)})

    use()  # its digests are kept from here on
    programs = [place for file in ("llama-server", "ggml-rpc-server", "libggml.so") for place in spread(here / file, 2)]
    known = within(paths.engine_dir() / "known.json", "(build", "identity", bits=0x02)
    return [*programs, *known, *within(here / "engine.json", "llama-server", "commit")], use


def settings(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    file = paths.user_settings_file()
    file.write_text(
        '{"model": "m", "backend": "embedded", "think": true,\n "nodes": [{"url": "http://a:1", "parallel": 2}],\n'
        ' "call_timeout": 30}'
    )

    def use() -> Facts:
        loaded = load_settings().settings
        backend_kind(loaded.backend or "embedded")
        return frozenset((name, repr(value)) for name, value in loaded.model_dump().items())

    return within(file, "{", "model", ": ", "embedded", "true", "url", "http", "parallel", "call_timeout", "}"), use


def replies(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    file = home / "replies.sqlite3"

    async def filled() -> None:
        store = ReplyStore(file)
        for number in range(8):
            await store.put(f"key {number}", StoredReply(f"{number}: {TEXT}", "llama3.1:8b", "http://desk:11434"))
        await store.aclose()

    async def found() -> Facts:
        store = ReplyStore(file)
        kept = {f"key {number}": await store.get(f"key {number}", 3600.0) for number in range(8)}
        await store.aclose()
        return frozenset((key, reply) for key, reply in kept.items() if reply is not None)

    asyncio.run(filled())
    inside = within(file, "3: The", "7: The", "llama3.1:8b", "desk", "key 5", bits=0x04)
    return [*inside, *spread(file, 3, 0x10)], lambda: asyncio.run(found())


def records(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    device = Device(index=0, memory_free=8 << 30, memory_total=16 << 30, alignment=32, max_size=1 << 40)
    remember(WORKER, WorkerFacts(version=ProtocolVersion(7, 0, 0), devices=(device,), round_trip=0.0005))
    trust_folder(home / "project", {"synapticllamas.json": '{"nodes": ["http://a:1"]}'})

    def use() -> Facts:
        known = recall(WORKER)
        return frozenset([("trusted", repr(trusted_folders())), *([("worker", known.facts)] if known else [])])

    learned = within(paths.worker_facts_file(), "10.0", "0.0005", "8589934592", bits=0x02)
    return [*learned, *within(paths.trusted_folders_file(), "project", "synapticllamas.json", bits=0x02)], use


def journal(home: Path) -> tuple[list[Place], Callable[[], Facts]]:
    async def run() -> None:
        async with Session(Settings(backend="scripted")) as session:
            await session.run("What is the answer to life and everything in it?", pipeline="answer")

    def use() -> Facts:
        with Journal() as kept:
            runs = [run for run in kept.runs() if run.status != "damaged"]
            events = frozenset((run.id, repr(event)) for run in runs for event in kept.events(run))
            return events | {("run", repr(run)) for run in runs}

    asyncio.run(run())
    use()
    bodies = within(paths.journal_file(), "RunFinished", '"status"', '"usage"', '"route"', bits=0x02)
    row = within(paths.journal_file(), "What is the answer to life", "succeeded", "answer", "scripted", bits=0x02)
    return [*bodies, *row, *spread(paths.journal_file(), 3)], use


KINDS: Final = (model, tensors, engine, settings, replies, records, journal)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_is_never_used_silently(own_home: Path, kind: Callable[[Path], tuple[list[Place], object]]):
    places, use = kind(own_home)
    right = use()
    assert right
    silent = []
    for file, place, bits in places:
        before = file.read_bytes()
        settle(file)
        assert use() == right
        flip_byte(file, place, bits)
        try:
            wrong = use() - right
        except SynapticError as error:
            assert file.name in str(error) or error.hint or "damaged" in str(error), error
            wrong = frozenset()
        if wrong:
            silent.append((file.name, place, sorted(map(str, wrong))[:1]))
        file.unlink(missing_ok=True)  # it may be linked to elsewhere
        file.write_bytes(before)
        file.chmod(0o755)
    assert silent == []
