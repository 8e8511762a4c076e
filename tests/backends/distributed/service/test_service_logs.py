"""The logs of a service: their last lines, and the lines that come, through rotation."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from distributed_support import READY

from synaptic.backends.distributed.service.logs import (
    BLOCK,
    Line,
    Log,
    LogReader,
    last_lines,
    logs_of,
)
from synaptic.backends.distributed.service.record import new_record


def test_the_logs_of_a_service():
    record = new_record("big", os.getpid())
    assert logs_of(record) == [Log("service", record.log_file)]
    assert logs_of(replace(record, status=READY)) == [
        Log("service", record.log_file),
        Log("coordinator", Path("/logs/llama.log")),
        Log("127.0.0.1:50052", Path("/logs/w.log")),
    ]
    assert len(logs_of(replace(record, status=replace(READY, log_file=None)))) == 2


def test_last_lines(tmp_path: Path):
    file = tmp_path / "a.log"
    assert last_lines(file, 5) == []
    file.write_bytes(b"one\ntwo\nthr\xff\n")
    assert last_lines(file, 2) == ["two", "thr\ufffd"]
    assert last_lines(file, 9) == ["one", "two", "thr\ufffd"]
    assert last_lines(file, 0) == []


def test_last_lines_of_a_long_log(tmp_path: Path):
    file = tmp_path / "a.log"
    lines = [f"line {number}" for number in range(3 * BLOCK // 8)]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert last_lines(file, 3) == lines[-3:]
    assert last_lines(file, len(lines)) == lines


def test_last_lines_go_on_in_the_log_before(tmp_path: Path):
    file = tmp_path / "a.log"
    (tmp_path / "a.log.1").write_text("old\nolder is above\n", encoding="utf-8")
    file.write_text("new\n", encoding="utf-8")
    assert last_lines(file, 2) == ["older is above", "new"]


def test_lines_say_whose_they_are(tmp_path: Path):
    (tmp_path / "a").write_text("x\n", encoding="utf-8")
    (tmp_path / "b").write_text("y\n", encoding="utf-8")
    logs = [Log("a", tmp_path / "a"), Log("b", tmp_path / "b"), Log("c", tmp_path / "c")]
    assert list(LogReader(lambda: logs).there(5)) == [Line("a", "x"), Line("b", "y")]


async def test_between_what_is_there_and_what_comes_nothing_is_lost_and_nothing_said_twice(tmp_path: Path):
    log = Log("a", tmp_path / "a.log")
    log.file.write_text("one\ntwo\nhalf", encoding="utf-8")
    reader = LogReader(lambda: [log])
    with log.file.open("a", encoding="utf-8") as stream:
        stream.write(" and half\nthree\n")
    assert [line.text for line in reader.there(9)] == ["one", "two"]
    async with aclosing(reader.coming()) as lines, asyncio.timeout(60):
        assert [(await anext(lines)).text for _ in range(2)] == ["half and half", "three"]


async def test_lines_that_come(tmp_path: Path):
    first, second = Log("a", tmp_path / "a.log"), Log("b", tmp_path / "b.log")
    first.file.write_text("before\n", encoding="utf-8")
    logs = [first]

    async with aclosing(LogReader(lambda: logs).coming()) as lines, asyncio.timeout(60):

        async def said() -> str:
            return (await anext(lines)).text

        waiting = asyncio.create_task(said())
        await asyncio.sleep(0.05)
        with first.file.open("a", encoding="utf-8") as stream:
            stream.write("half")
            stream.flush()
            await asyncio.sleep(0.4)
            assert not waiting.done()
            stream.write(" and half\nlast of the old")
        assert await waiting == "half and half"

        # Turned over, as our logs are: renamed, and begun anew.
        with first.file.open("a", encoding="utf-8") as stream:
            stream.write(" log\n")
        first.file.rename(tmp_path / "a.log.1")
        first.file.write_text("new\n", encoding="utf-8")
        assert [await said(), await said()] == ["last of the old log", "new"]

        # One that is there only now is read from its beginning.
        second.file.write_text("first of b\n", encoding="utf-8")
        logs.append(second)
        assert await anext(lines) == Line("b", "first of b")

        first.file.write_text("", encoding="utf-8")
        await_shorter = asyncio.create_task(said())
        await asyncio.sleep(0.4)
        first.file.write_text("x\n", encoding="utf-8")
        assert await await_shorter == "x"


async def test_a_log_that_goes_away_is_waited_for(tmp_path: Path):
    log = Log("a", tmp_path / "a.log")
    async with aclosing(LogReader(lambda: [log]).coming()) as lines, asyncio.timeout(60):
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0.3)
        log.file.write_text("at last\n", encoding="utf-8")
        assert await waiting == Line("a", "at last")


def test_what_cannot_be_read_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(IsADirectoryError):
        last_lines(tmp_path, 1)
