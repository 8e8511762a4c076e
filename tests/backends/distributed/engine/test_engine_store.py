"""Which engine is in use, and what is remembered of it."""

import json
import os
from pathlib import Path

import pytest
from engine_support import SIGILL, llama_server, stand_in, starts, write_program

from synaptic import paths
from synaptic.backends.distributed.engine.store import (
    EngineManifest,
    adopt,
    adopted_directory,
    current_engine,
    forget_adopted,
    installed_engines,
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


async def test_an_engine_whose_files_changed_is_started_again():
    here = built("here")
    first = await current_engine()
    write_program(here / "llama-server", llama_server("0.5.0 (build 0, commit abcdef123)"))
    second = await current_engine()
    assert second.facts.commit == "abcdef123" and second.identity != first.identity


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
