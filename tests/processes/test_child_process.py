"""A child process never outlives its parent, and what it says and how it ends is known."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import psutil
import pytest

from synaptic.errors import BackendUnavailable
from synaptic.processes import child as child_process
from synaptic.processes.child import ChildProcess, describe_exit, python_command, tied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

GONE_WITHIN = 60.0  # seconds; the machine may be busy


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


SLEEPER = python("import sys, time; print('ready', flush=True); time.sleep(600)")
STUBBORN = python(
    """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('ready', flush=True)
    time.sleep(600)
    """
)


@contextlib.asynccontextmanager
async def running(command: Sequence[str], **options: object) -> AsyncIterator[ChildProcess]:
    child = await ChildProcess.start(command, **options)  # type: ignore[arg-type]
    try:
        yield child
    finally:
        await child.stop()


def wait_until_gone(pid: int) -> None:
    """Fail if the process is still there after a while; a zombie counts as gone, its parent is dead."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(GONE_WITHIN)


async def test_lines_of_standard_output_come_one_by_one_and_end_with_none() -> None:
    async with running(python("print('one'); print('two', end='')")) as child:
        assert [await child.read_line() for _ in range(4)] == ["one", "two", None, None]
        assert await child.wait() == 0


async def test_the_first_line_is_written_and_standard_input_stays_open() -> None:
    code = "import sys; print(sys.stdin.readline().strip(), flush=True); print(repr(sys.stdin.read()))"
    async with running(python(code), first_line='{"a": 1}') as child:
        assert await child.read_line() == '{"a": 1}'
        assert child.running


async def test_the_tail_keeps_the_last_lines_of_standard_error() -> None:
    async with running(python("import sys; [print(i, file=sys.stderr) for i in range(250)]")) as child:
        assert await child.wait() == 0
        assert child.tail == tuple(str(number) for number in range(150, 250))


async def test_a_line_without_end_does_not_fill_the_memory() -> None:
    async with running(python("import sys; sys.stderr.write('x' * 500_000)")) as child:
        assert await child.wait() == 0
        assert len(child.tail) > 1
        assert sum(map(len, child.tail)) == 500_000


async def test_standard_error_is_also_written_to_the_log_file(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    async with running(python("import sys; print('oops \\xe9', file=sys.stderr)"), log_file=log) as child:
        await child.wait()
    assert f"[{child.pid}] oops" in log.read_text("utf-8")


async def test_the_log_file_is_turned_over_at_its_bound(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("x" * child_process.LOG_BYTES)
    async with running(python("import sys; print('new', file=sys.stderr)"), log_file=log) as child:
        await child.wait()
    assert log.stat().st_size < 100
    assert (tmp_path / "child.log.1").stat().st_size == child_process.LOG_BYTES


async def test_a_log_file_that_cannot_be_opened_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with running(
        python("import sys; print('oops', file=sys.stderr)"), log_file=tmp_path / "file" / "log"
    ) as child:
        await child.wait()
        assert child.tail == ("oops",)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - a device
async def test_a_full_disk_is_not_reported_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "full.log"
    log.symlink_to("/dev/full")
    async with running(python("import sys; print('oops', file=sys.stderr)"), log_file=log) as child:
        await child.wait()
        assert child.tail == ("oops",)
    assert capfd.readouterr().err == ""


async def test_a_program_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(BackendUnavailable, match="cannot start '/no/such/program': No such file"):
        await ChildProcess.start(["/no/such/program"])


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children()}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await ChildProcess.start(SLEEPER, log_file=tmp_path / "log")
    assert {process.pid for process in psutil.Process().children()} <= before


async def test_the_environment_is_replaced_when_given() -> None:
    async with running(python("import os; print(os.environ.get('HOME'), os.environ['A'])"), env={"A": "b"}) as child:
        assert await child.read_line() == "None b"


async def test_stop_ends_and_reaps_the_child() -> None:
    async with running(SLEEPER) as child:
        assert await child.read_line() == "ready"
        await child.stop()
        assert child.returncode == -signal.SIGTERM
        assert not psutil.pid_exists(child.pid)
        await child.stop()


async def test_stop_kills_a_child_that_ignores_being_asked() -> None:
    async with running(STUBBORN) as child:
        assert await child.read_line() == "ready"
        await child.stop(grace=0.05)
        assert child.returncode == -signal.SIGKILL
        assert not psutil.pid_exists(child.pid)


async def test_a_cancelled_stop_kills_the_child_all_the_same() -> None:
    async with running(STUBBORN) as child:
        assert await child.read_line() == "ready"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.stop(grace=600)
        assert child.returncode == -signal.SIGKILL
        assert not psutil.pid_exists(child.pid)


async def test_a_stop_that_is_cancelled_while_it_reaps_leaves_nothing_open(tmp_path: Path) -> None:
    child = await ChildProcess.start(SLEEPER, log_file=tmp_path / "log")
    stopping = asyncio.create_task(child.stop(grace=600))
    await asyncio.sleep(0)  # it waits for the end
    stopping.cancel()
    await asyncio.sleep(0)  # it has killed the child, and reaps it
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not child.running
    assert not psutil.pid_exists(child.pid)
    del child, stopping
    gc.collect()  # what is not closed says so here, and fails the test


async def test_kill_takes_what_the_child_has_started_along() -> None:
    code = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
        print(child.pid, flush=True)
        time.sleep(600)
    """
    async with running(python(code)) as child:
        grandchild = int(await child.read_line() or 0)
        assert psutil.pid_exists(grandchild)
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        wait_until_gone(grandchild)
    child.kill()


async def test_a_grandchild_that_holds_the_pipes_does_not_delay_the_end() -> None:
    code = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)
    """
    async with running(python(code)) as child:
        grandchild = int(await child.read_line() or 0)
        try:
            assert await child.wait() == 0
        finally:
            os.kill(grandchild, signal.SIGKILL)


async def test_the_end_is_told_once_with_the_exit_status() -> None:
    seen: list[int | None] = []
    async with running(python("raise SystemExit(7)"), on_exit=lambda child: seen.append(child.returncode)) as child:
        assert await child.wait() == 7
        assert not child.running
    assert seen == [7]


async def test_an_end_that_was_asked_for_is_not_told() -> None:
    seen: list[int | None] = []
    async with running(SLEEPER, on_exit=lambda child: seen.append(child.returncode)) as child:
        await child.read_line()
    assert seen == []


async def test_exited_within_says_no_while_the_child_runs() -> None:
    async with running(SLEEPER) as child:
        assert not await child.exited_within(0.01)
        child.kill()
        assert await child.exited_within(GONE_WITHIN)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-4, "was killed by SIGILL"),
        (-9, "was killed by SIGKILL"),
        (-250, "was killed by signal 250"),
    ],
)
def test_an_exit_is_described_in_words(returncode: int, words: str) -> None:
    assert describe_exit(returncode) == words


async def test_a_module_of_ours_is_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory is not on the child's path: a file there cannot take the place of a module."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    command = [*tied(python("import os; print(os.getppid())"))]
    async with running(command) as child:
        assert await child.read_line() == str(os.getpid())
    assert python_command("m", "x")[-2:] == ["m", "x"]


async def test_a_tied_program_whose_parent_is_gone_already_does_not_start() -> None:
    orphan = python_command("synaptic.processes.lifeline", "1", ".", *python("print('started')"))
    async with running(orphan) as child:
        assert await child.read_line() is None
        assert await child.wait() == 1


PARENT = """
    import asyncio, os, signal, sys
    from synaptic.processes.child import ChildProcess, tied, python_command

    async def main():
        child = await ChildProcess.start({command})
        await child.read_line()
        print(child.pid, flush=True)
        {then}

    asyncio.run(main())
"""
STDIN_CHILD = """[sys.executable, "-c", "import time; from synaptic.processes.lifeline import exit_at_end_of_input; \
exit_at_end_of_input(); print('ready', flush=True); time.sleep(600)"]"""
TIED_CHILD = """tied([sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"])"""
PLAIN_CHILD = """[sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]"""


@pytest.mark.parametrize(
    ("command", "then"),
    [
        pytest.param(STDIN_CHILD, "os.kill(os.getpid(), signal.SIGKILL)", id="end of input, SIGKILL"),
        pytest.param(TIED_CHILD, "os.kill(os.getpid(), signal.SIGKILL)", id="kernel, SIGKILL"),
        pytest.param(TIED_CHILD, "os.kill(os.getpid(), signal.SIGTERM)", id="kernel, SIGTERM"),
        pytest.param(PLAIN_CHILD, "sys.exit()", id="plain child, exit of the interpreter"),
    ],
)
def test_no_child_outlives_its_parent(command: str, then: str) -> None:
    code = textwrap.dedent(PARENT).format(command=command, then=then)
    parent = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, check=False)
    wait_until_gone(int(parent.stdout))
    assert not psutil.pid_exists(int(parent.stdout)) or psutil.Process(int(parent.stdout)).status() == "zombie"


def test_at_exit_a_number_that_is_not_our_child_any_more_is_left_alone() -> None:
    stranger = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, time\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\ntime.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with stranger:
        assert stranger.stdout is not None
        pid = int(stranger.stdout.readline())
        try:
            ChildProcess._alive.add(pid)
            child_process._kill_what_is_left()
            assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        finally:
            ChildProcess._alive.discard(pid)
            os.kill(pid, signal.SIGKILL)


async def test_at_exit_a_child_that_still_runs_is_killed() -> None:
    async with running(SLEEPER) as child:
        await child.read_line()
        child_process._kill_what_is_left()
        assert await child.wait() == -signal.SIGKILL


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "LOOK_SECONDS", 0.05)


FAMILY = python(
    """
    import subprocess, sys, time
    below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
    print(below.pid, flush=True)
    time.sleep(600)
    """
)


@pytest.mark.usefixtures("looks_often")
async def test_a_child_that_is_stopped_is_killed_and_counts_as_lost() -> None:
    async with running(SLEEPER) as child:
        await child.read_line()
        os.kill(child.pid, signal.SIGSTOP)
        assert await asyncio.wait_for(child.wait(), GONE_WITHIN) == -signal.SIGKILL
        assert child.lost
        assert child.ending == "was stopped by a signal and did not go on, so that it was killed"


@pytest.mark.usefixtures("looks_often")
async def test_a_child_is_killed_when_something_that_it_started_is_stopped_and_takes_that_with_it() -> None:
    async with running(FAMILY) as child:
        below = int(await child.read_line() or "")
        os.kill(below, signal.SIGSTOP)
        await asyncio.wait_for(child.wait(), GONE_WITHIN)
        assert child.stopped
        await asyncio.to_thread(wait_until_gone, below)


@pytest.mark.usefixtures("looks_often")
async def test_a_child_that_goes_on_soon_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    look = child_process.stopped_at

    def noted(pid: int) -> float | None:
        found = look(pid)
        looks.append(found is not None)
        return found

    monkeypatch.setattr(child_process, "stopped_at", noted)
    async with running(SLEEPER) as child:
        await child.read_line()
        for _ in range(3):
            os.kill(child.pid, signal.SIGSTOP)
            seen = len(looks)
            while not any(looks[seen:]):
                await asyncio.sleep(0.005)
            os.kill(child.pid, signal.SIGCONT)
            seen = len(looks)
            while all(looks[seen:]):
                await asyncio.sleep(0.005)
        assert child.running
        assert not child.lost


@pytest.mark.usefixtures("looks_often")
async def test_a_child_that_gets_on_although_every_look_finds_it_stopped_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is with one that cpulimit slows down."""
    used = iter(range(1000))
    looks = 3 * child_process.FAMILY_LOOKS
    monkeypatch.setattr(child_process, "stopped_at", lambda _: float(next(used)))
    async with running(SLEEPER) as child:
        await child.read_line()
        while child._looks < looks:
            assert child.running
            await asyncio.sleep(0.01)
        assert child.running


async def test_what_we_end_or_what_fails_by_itself_is_not_lost() -> None:
    async with running(SLEEPER) as ended:
        await ended.read_line()
    async with running(SLEEPER) as killed:
        await killed.read_line()
        killed.kill()
        await killed.wait()
    async with running(python("import os; os.kill(os.getpid(), 4)")) as broken:
        await broken.wait()
    async with running(python("import os; os.kill(os.getpid(), 9)")) as lost:
        await lost.wait()
    assert [child.lost for child in (ended, killed, broken, lost)] == [False, False, False, True]
