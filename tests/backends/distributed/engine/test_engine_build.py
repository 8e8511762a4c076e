"""Installing an engine with the real CMake, ninja and compiler, from a source of a few lines."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from engine_support import ENDLESS, NEEDS_CMAKE, SIGILL, WAITS, Sdist, sdist, starts, use_only, write_program

from synaptic import paths
from synaptic.backends.distributed.engine.build import BuildOrder, install
from synaptic.backends.distributed.engine.builds import running_builds
from synaptic.backends.distributed.engine.engine import locate
from synaptic.backends.distributed.engine.progress import EngineProgress
from synaptic.backends.distributed.engine.store import current_engine, installed_engines, keep_digests
from synaptic.errors import EngineUnavailable, UsageError

pytestmark = NEEDS_CMAKE
PATIENCE = 60.0


def order(small: Sdist, **values) -> BuildOrder:
    return BuildOrder(archive=small.archive, source=small.source, jobs=1, **values)


def place(small: Sdist) -> Path:
    return paths.engine_dir() / order(small).key


def staging(small: Sdist) -> Path:
    return paths.engine_dir() / f".build-{order(small).key}"


async def until(condition, what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def compiler(task: asyncio.Task | None = None) -> int:
    """The process id of the endless compilation, once it runs."""
    file = paths.engine_dir() / "compiler.pid"
    await until(lambda: file.exists() or (task is not None and task.done()), "the compiler to start")
    return int(file.read_text())


def mend(small: Sdist) -> None:
    """Let the compilation come to its end."""
    (staging(small) / "source/compile.sh").write_text("touch endless\n")


async def test_an_engine_is_fetched_built_looked_at_and_in_use(tmp_path, monkeypatch):
    small = sdist(tmp_path)
    use_only(monkeypatch, tmp_path)
    stages = []
    wanted = BuildOrder(source=small.source, jobs=1)
    done = await install(wanted, lambda progress: stages.append(progress.stage))
    assert list(dict.fromkeys(stages)) == ["fetching", "unpacking", "configuring", "building", "checking"]
    assert done.engine.files.directory == place(small) and not done.was_there and done.build_seconds > 0
    assert done.engine.facts.rpc_version == "7.0.0"
    assert {file.name for file in place(small).iterdir()} >= {"libggml.so", "llama-server", "engine.json"}
    assert not staging(small).exists()
    assert (await current_engine()).identity == done.engine.identity
    assert [one.manifest.commit for one in installed_engines()] == ["0c1e57098"]


async def test_what_is_installed_is_not_built_again_unless_forced(tmp_path):
    small = sdist(tmp_path)
    first = await install(order(small))
    manifest = place(small) / "engine.json"
    before = manifest.stat().st_ino
    again = await install(order(small))
    assert again.was_there and again.engine.identity == first.engine.identity and manifest.stat().st_ino == before
    assert starts(place(small))
    forced = await install(order(small, force=True))
    assert not forced.was_there and manifest.stat().st_ino != before
    assert [path.name for path in paths.engine_dir().glob(".old-*")] == []


async def test_an_engine_that_lost_a_file_or_has_another_one_is_built_again(tmp_path):
    small = sdist(tmp_path)
    await install(order(small))
    (place(small) / "llama-server").unlink()
    assert not (await install(order(small))).was_there
    write_program(place(small) / "llama-server", SIGILL)
    assert not (await install(order(small))).was_there
    assert "SIGILL" not in (place(small) / "llama-server").read_text()


async def test_an_installed_engine_that_does_not_work_says_how_to_build_it_again(tmp_path):
    small = sdist(tmp_path)
    await install(order(small))
    write_program(place(small) / "llama-server", SIGILL)
    keep_digests(locate(place(small)), "built")
    with pytest.raises(
        EngineUnavailable, match="is installed, but does not work: llama-server was killed by SIGILL"
    ) as e:
        await install(order(small))
    assert "--force" in (e.value.hint or "")


async def test_a_compiler_error_is_quoted_and_installs_nothing(tmp_path):
    small = sdist(tmp_path, code="int ggml(void) { return nonsense; }\n")
    with pytest.raises(EngineUnavailable, match=r"could not be built: .*error: .*nonsense") as caught:
        await install(order(small))
    log = staging(small) / "build.log"
    assert str(log) in (caught.value.hint or "") and "nonsense" in log.read_text()
    assert installed_engines() == [] and not place(small).exists()


async def test_a_configuration_error_is_quoted(tmp_path):
    small = sdist(tmp_path, extra='message(FATAL_ERROR "no such CPU")\n')
    with pytest.raises(EngineUnavailable, match=r"could not be configured: CMake Error .*no such CPU"):
        await install(order(small))


async def test_an_engine_that_does_not_start_is_not_installed(tmp_path):
    small = sdist(tmp_path, server=SIGILL)
    with pytest.raises(EngineUnavailable, match="llama-server was killed by SIGILL"):
        await install(order(small))
    assert installed_engines() == []


async def test_a_cancelled_build_ends_the_compiler_and_the_next_one_goes_on(tmp_path):
    small = sdist(tmp_path, extra=ENDLESS)
    task = asyncio.create_task(install(order(small)))
    pid = await compiler(task)
    library = staging(small) / "build/bin/libggml.so"
    await until(library.exists, "the library")
    made = library.stat().st_mtime_ns
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(pid)
    assert installed_engines() == []
    mend(small)
    stages = []
    await install(order(small), lambda progress: stages.append(progress.stage))
    assert "fetching" not in stages and "unpacking" not in stages
    assert (place(small) / "libggml.so").stat().st_mtime_ns == made  # it was not compiled a second time


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_killed_installer_takes_the_compiler_with_it(tmp_path, how):
    """ninja gives each compiler a process group of its own, so killing its group is not enough."""
    small = sdist(tmp_path, extra=ENDLESS)
    driver = Path(__file__).parents[3] / "support" / "engine_build_driver.py"
    with subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, driver, small.archive, "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as installer:
        pid = await compiler()
        tree = [process.pid for process in psutil.Process(installer.pid).children(recursive=True)]
        installer.send_signal(how)
        await until(lambda: installer.poll() is not None, "the installer to end")
    await until(lambda: all(gone(one) for one in (pid, *tree)), "its children to end")
    assert installed_engines() == []
    mend(small)
    assert not (await install(order(small))).was_there


@asynccontextmanager
async def installer(small: Sdist):
    """Another process that installs the same engine."""
    driver = Path(__file__).parents[3] / "support" / "engine_build_driver.py"
    with subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, driver, small.archive, "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def reports(process: subprocess.Popen[str]) -> list[list]:
    """What an installer said from now on until its end."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return [json.loads(line) for line in await asyncio.to_thread(process.stdout.readlines)]


async def first_report(process: subprocess.Popen[str]) -> list:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return json.loads(await asyncio.to_thread(process.stdout.readline))


async def waiter(small: Sdist, builder: int, seen: list[EngineProgress]) -> asyncio.Task:
    """An installation in this process that has seen the other one build."""
    task = asyncio.create_task(install(order(small), seen.append))
    await until(lambda: ("building", builder) in [(one.stage, one.process) for one in seen], "the other's progress")
    return task


async def test_an_installation_waits_for_the_one_that_builds_and_shows_its_progress(tmp_path):
    small = sdist(tmp_path, extra=WAITS)
    async with installer(small) as other:
        await compiler()
        seen: list[EngineProgress] = []
        waiting = await waiter(small, other.pid, seen)
        assert [(one.engine, one.progress.process) for one in running_builds()] == [(place(small).name, other.pid)]
        (staging(small).parent / "go").touch()
        done = await waiting
        said = await reports(other)
    assert done.was_there and done.waited and done.engine.files.directory == place(small)
    assert all(one.process == other.pid for one in seen)  # it built nothing itself
    assert said[-1] == ["done", False, False]
    assert running_builds() == [] and list(paths.engine_dir().glob(".*.progress.json")) == []


async def test_an_installation_takes_over_when_the_process_that_builds_is_killed(tmp_path):
    small = sdist(tmp_path, extra=ENDLESS)
    async with installer(small) as other:
        await compiler()
        seen: list[EngineProgress] = []
        waiting = await waiter(small, other.pid, seen)
        mend(small)
        other.kill()
        done = await waiting
    assert not done.was_there and not done.waited and place(small).is_dir()
    own = [one.stage for one in seen if one.process is None]
    assert "building" in own and "unpacking" not in own  # it went on from what was there


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_ending_the_one_that_waits_does_no_harm_to_the_build(tmp_path, how):
    small = sdist(tmp_path, extra=WAITS)
    building = asyncio.create_task(install(order(small)))
    pid = await compiler(building)
    async with installer(small) as other:
        assert (await first_report(other))[1] == os.getpid()
        other.send_signal(how)
        await until(lambda: other.poll() is not None, "the one that waits to end")
    assert not gone(pid) and [one.progress.process for one in running_builds()] == [os.getpid()]
    (staging(small).parent / "go").touch()
    assert not (await building).was_there


async def test_a_forced_installation_takes_what_another_process_just_built(tmp_path):
    small = sdist(tmp_path, extra=WAITS)
    first = asyncio.create_task(install(order(small)))
    await compiler(first)
    seen: list[EngineProgress] = []
    second = asyncio.create_task(install(order(small, force=True), seen.append))
    await until(lambda: bool(seen), "the other's progress")
    (staging(small).parent / "go").touch()
    assert not (await first).was_there
    assert (await second).waited


async def test_what_a_killed_build_said_of_itself_counts_no_more(tmp_path):
    small = sdist(tmp_path)
    (paths.engine_dir()).mkdir(parents=True)
    (paths.engine_dir() / f".{place(small).name}.lock").touch()
    (paths.engine_dir() / f".{place(small).name}.progress.json").write_text('{"stage": "building", "process": 1}')
    assert running_builds() == []
    seen: list[EngineProgress] = []
    await install(order(small), seen.append)
    assert all(one.process is None for one in seen)


async def test_another_configuration_does_not_go_on_from_the_old_one(tmp_path):
    small = sdist(tmp_path, extra=ENDLESS)
    task = asyncio.create_task(install(order(small)))
    await compiler(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (staging(small) / "configuration.json").write_text("{}")
    marker = staging(small) / "build/marker"
    marker.touch()
    mend(small)
    await install(order(small))
    assert not marker.exists() and place(small).is_dir()


async def test_a_wrong_archive_is_refused_and_leaves_nothing_that_looks_unpacked(tmp_path):
    small = sdist(tmp_path)
    small.archive.write_bytes(small.archive.read_bytes() + b"x")
    with pytest.raises(EngineUnavailable, match="its checksum is"):
        await install(order(small))
    assert not (staging(small) / "source").exists()
    with pytest.raises(UsageError, match="cannot read"):
        await install(BuildOrder(archive=tmp_path / "nowhere", source=small.source))


async def test_a_cache_that_cannot_be_made_is_said():
    paths.engine_dir().parent.mkdir(parents=True, exist_ok=True)
    paths.engine_dir().write_text("in the way")
    with pytest.raises(EngineUnavailable, match=r"could not be installed: .*engines"):
        await install(BuildOrder())
