"""Which engine is in use, and what is remembered of it."""

import json
import os
from pathlib import Path

import pytest
from engine_support import SIGILL, rpc_server, stand_in, starts, write_program
from flipped_bytes import flip_byte, settle

from synaptic import paths
from synaptic.backends.distributed.engine.store import (
    EngineManifest,
    adopt,
    adopted_directory,
    check_unchanged,
    current_engine,
    forget_adopted,
    installed_engines,
    verify_engine,
    write_manifest,
)
from synaptic.errors import EngineUnavailable, UsageError


def built(key: str, installed_at: float = 1.0) -> Path:
    directory = stand_in(paths.engine_dir() / key)
    manifest = EngineManifest(
        key=key, version="1.0", commit="0c1e57098", acceleration="cpu", installed_at=installed_at, build_seconds=60.0
    )
    write_manifest(directory, manifest)
    return directory


async def test_without_an_engine_it_says_how_to_get_one():
    with pytest.raises(EngineUnavailable, match="no engine is installed") as caught:
        await current_engine()
    assert "synaptic engine install" in (caught.value.hint or "")


async def test_the_latest_built_engine_is_in_use():
    built("old", 1.0)
    new = built("new", 3.0)
    built("middle", 2.0)
    engine = await current_engine()
    assert engine.files.directory == new and engine.origin == "built"
    assert [one.directory.name for one in installed_engines()] == ["new", "middle", "old"]


async def test_what_is_not_complete_is_no_engine():
    whole = built("whole")
    (built("robbed", 2.0) / "llama-server").unlink()
    stand_in(paths.engine_dir() / "without-manifest")
    built(".build-hidden", 3.0)
    (built("damaged", 4.0) / "engine.json").write_text("{")
    assert (await current_engine()).files.directory == whole


async def test_an_adopted_engine_goes_before_a_built_one_until_it_is_forgotten(tmp_path):
    here = built("here")
    mine = stand_in(tmp_path / "llama.cpp/build/bin")
    assert (await adopt(tmp_path / "llama.cpp")).origin == "adopted"
    engine = await current_engine()
    assert engine.files.directory == mine and engine.origin == "adopted"
    assert forget_adopted() == mine
    assert forget_adopted() is None
    assert (await current_engine()).files.directory == here


async def test_an_engine_that_does_not_work_is_not_adopted(tmp_path):
    good, bad = stand_in(tmp_path / "good"), stand_in(tmp_path / "bad", server=SIGILL)
    await adopt(good)
    with pytest.raises(EngineUnavailable, match="SIGILL"):
        await adopt(bad)
    with pytest.raises(UsageError):
        await adopt(tmp_path / "nowhere")
    assert adopted_directory() == good


async def test_an_adopted_engine_that_is_gone_is_an_error_and_no_other_is_taken(tmp_path):
    built("here")
    mine = stand_in(tmp_path / "mine")
    await adopt(mine)
    (mine / "ggml-rpc-server").unlink()
    with pytest.raises(EngineUnavailable, match="the engine in use is not complete") as caught:
        await current_engine()
    assert "--none" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"directory": 3}', "\x00"])
async def test_a_choice_that_cannot_be_read_is_said_and_can_be_taken_back(text):
    here = built("here")
    file = paths.engine_choice_file()
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(EngineUnavailable, match="does not say which engine to use"):
        await current_engine()
    forget_adopted()
    assert (await current_engine()).files.directory == here


async def test_an_engine_that_is_known_is_not_started_again():
    here = built("here")
    first = await current_engine()
    count = len(starts(here))
    assert count > 0
    assert await current_engine() == first
    assert len(starts(here)) == count


def other_program(directory: Path) -> None:
    write_program(directory / "ggml-rpc-server", rpc_server("7.0.1"))


def other_program_with_the_same_time(directory: Path) -> None:
    program = directory / "ggml-rpc-server"
    status = program.stat()
    flip_byte(program, -1, 0x06)  # a form feed: it works as before
    os.utime(program, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = [
    pytest.param(other_program, "ggml-rpc-server has other content", id="another program"),
    pytest.param(other_program_with_the_same_time, "ggml-rpc-server has other content", id="a flipped byte"),
    pytest.param(lambda at: flip_byte(at / "libggml.so", 3), "libggml.so has other content", id="a library"),
    pytest.param(lambda at: (at / "libggml-evil.so").write_bytes(b"x"), "libggml-evil.so was not there", id="one more"),
    pytest.param(lambda at: (at / "libggml.so").unlink(), "libggml.so is gone", id="one less"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
@pytest.mark.parametrize("origin", ["built", "adopted"])
async def test_an_engine_that_changed_is_not_started_until_it_is_adopted_knowingly(tmp_path, origin, change, words):
    if origin == "built":
        here = built("here")
    else:
        await adopt(here := stand_in(tmp_path / "mine"))
    engine = await current_engine()
    await check_unchanged(engine)
    settle(*engine.files.everything)
    change(here)
    count = len(starts(here))
    for refused in (current_engine(), check_unchanged(engine)):
        with pytest.raises(EngineUnavailable, match=f"is not the one that was {origin}: {words}") as caught:
            await refused
        hint = caught.value.hint or ""
        assert f"synaptic engine use {here}" in hint and ("synaptic engine install" in hint) == (origin == "built")
    _, states = verify_engine()
    assert words.split()[0] in [state.name for state in states if state.state != "whole"]
    assert len(starts(here)) == count
    adopted = await adopt(here)
    assert await current_engine() == adopted


async def test_an_engine_from_before_digests_were_kept_is_taken_as_it_is_then():
    here = built("here")
    assert installed_engines()[0].manifest.files == {}
    await current_engine()
    assert sorted(installed_engines()[0].manifest.files) == sorted(
        ["llama-server", "ggml-rpc-server", "libggml.so", "libggml-cpu-haswell.so", "libggml-cpu-zen4.so"]
    )
    flip_byte(here / "engine.json", 150)
    with pytest.raises(EngineUnavailable):
        await current_engine()


async def test_a_file_whose_time_alone_changed_is_read_and_the_engine_used():
    here = built("here")
    first = await current_engine()
    os.utime(here / "llama-server", (1, 1))
    assert (await current_engine()).identity == first.identity


@pytest.mark.parametrize("spoiled", ["", "[]", "{", '{"MARK": 1}', '{"MARK": {"version": "1"}}', '{"MARK": {"x": []}}'])
async def test_a_damaged_memory_costs_a_start_and_no_more(spoiled):
    built("here")
    first = await current_engine()
    memory = paths.engine_dir() / "known.json"
    mark = next(iter(json.loads(memory.read_text())))
    memory.write_text(spoiled.replace("MARK", mark))
    assert await current_engine() == first
    assert mark in json.loads(memory.read_text())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path):
    mine = stand_in(tmp_path / "mine")
    paths.engine_dir().mkdir(parents=True)
    paths.engine_dir().chmod(0o500)
    assert (await adopt(mine)).files.directory == mine


async def test_the_command_of_an_engine_runs_its_program():
    here = built("here")
    engine = await current_engine()
    assert engine.llama_server("--port", "1")[-3:] == [str(here / "llama-server"), "--port", "1"]
    assert engine.rpc_server("-c")[-2:] == [str(here / "ggml-rpc-server"), "-c"]
    assert len(engine.short_identity) == 12 and engine.identity.startswith(engine.short_identity)
