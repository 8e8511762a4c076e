"""Fetching the source with the real pip from a local directory, and taking the tree out of it."""

import gzip
import sys
import tarfile
from dataclasses import replace

import pytest
from engine_support import pin, sdist, use_only

from synaptic.backends.distributed.engine.source import LLAMA_CPP, check_archive, choose_pip, fetch, unpack
from synaptic.errors import EngineUnavailable, UsageError


def ignore(progress):
    """Listen to nothing."""


async def test_pip_fetches_the_archive_and_runs_nothing_of_it(tmp_path, monkeypatch):
    """Its build backend and what that requires are nowhere: pip would fail if it looked for them."""
    small = sdist(tmp_path / "index")
    use_only(monkeypatch, tmp_path / "index")
    reports = []
    archive = await fetch(small.source, tmp_path, reports.append, lambda: 0.0)
    assert archive.read_bytes() == small.archive.read_bytes()
    assert reports[-1].stage == "fetching" and reports[-1].share == 1.0
    assert not (tmp_path / "download/scratch").exists()


async def test_an_archive_with_another_checksum_is_refused_by_pip_itself(tmp_path, monkeypatch):
    small = sdist(tmp_path / "index")
    use_only(monkeypatch, tmp_path / "index")
    with pytest.raises(EngineUnavailable, match="could not be fetched") as caught:
        await fetch(replace(small.source, sha256="0" * 64), tmp_path, ignore, lambda: 0.0)
    assert "hash" in caught.value.message.lower()
    assert "--source small_llama-1.0.tar.gz" in (caught.value.hint or "")


async def test_an_archive_that_is_nowhere_is_said(tmp_path, monkeypatch):
    small = sdist(tmp_path / "index")
    (tmp_path / "empty").mkdir()
    use_only(monkeypatch, tmp_path / "empty")
    with pytest.raises(EngineUnavailable, match="Could not find a version that satisfies"):
        await fetch(small.source, tmp_path, ignore, lambda: 0.0)


async def test_a_fetch_may_be_repeated(tmp_path, monkeypatch):
    small = sdist(tmp_path / "index")
    use_only(monkeypatch, tmp_path / "index")
    for _ in range(2):
        assert (await fetch(small.source, tmp_path, ignore, lambda: 0.0)).is_file()


def test_pip_of_this_interpreter_goes_before_uv_and_neither_is_an_error():
    assert choose_pip(LLAMA_CPP, has_pip=True, uv="/u/uv", python=sys.executable)[0] == sys.executable
    assert choose_pip(LLAMA_CPP, has_pip=False, uv="/u/uv", python="/p")[:2] == ["/u/uv", "run"]
    with pytest.raises(EngineUnavailable, match="neither pip nor uv"):
        choose_pip(LLAMA_CPP, has_pip=False, uv=None, python="/p")


async def test_the_tree_is_unpacked_without_what_no_build_reads(tmp_path):
    small = sdist(tmp_path)
    await unpack(small.source, small.archive, tmp_path / "source")
    files = sorted(str(file.relative_to(tmp_path / "source")) for file in (tmp_path / "source").rglob("*"))
    assert files == ["CMakeLists.txt", "compile.sh", "ggml-rpc-server", "ggml.c", "llama-server", "wait.sh"]
    assert (tmp_path / "source/llama-server").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "source/ggml.c").stat().st_mtime == 1_700_000_000


@pytest.mark.parametrize("keep", [0, 100, 500])
async def test_a_damaged_archive_leaves_no_tree(tmp_path, keep):
    small = sdist(tmp_path)
    small.archive.write_bytes(small.archive.read_bytes()[:keep])
    with pytest.raises(EngineUnavailable, match="is damaged"):
        await unpack(small.source, small.archive, tmp_path / "source")
    assert not (tmp_path / "source").exists()


async def test_an_archive_of_rubbish_or_without_the_tree_is_refused(tmp_path):
    small = sdist(tmp_path)
    with pytest.raises(EngineUnavailable, match="does not hold elsewhere/llama"):
        await unpack(replace(small.source, tree="elsewhere/llama"), small.archive, tmp_path / "source")
    small.archive.write_bytes(gzip.compress(b"rubbish" * 1000))
    with pytest.raises(EngineUnavailable, match="is damaged"):
        await unpack(small.source, small.archive, tmp_path / "source")


async def test_nothing_is_written_outside_the_tree(tmp_path):
    archive = tmp_path / "small_llama-1.0.tar.gz"
    tree = "small_llama-1.0/vendor/llama.cpp"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("good.c", "../../evil.c", "/evil.c"):
            tar.addfile(tarfile.TarInfo(f"{tree}/{name}"))
        link = tarfile.TarInfo(f"{tree}/link.c")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    await unpack(pin(archive), archive, tmp_path / "target/source")
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.c")}
    assert written == {"target/source/good.c", "target/source/evil.c"}  # "//" is "/"


async def test_the_checksum_is_looked_at(tmp_path):
    small = sdist(tmp_path)
    await check_archive(small.source, small.archive)
    with pytest.raises(UsageError, match=r"cannot read .*nowhere"):
        await check_archive(small.source, tmp_path / "nowhere.tar.gz")
    with small.archive.open("ab") as file:
        file.write(b"more")
    with pytest.raises(EngineUnavailable, match="its checksum is"):
        await check_archive(small.source, small.archive)


def test_the_pin_is_consistent():
    assert LLAMA_CPP.file_name == "llama_cpp_python-0.3.36.tar.gz"
    assert LLAMA_CPP.tree.startswith(LLAMA_CPP.file_stem) and len(LLAMA_CPP.sha256) == 64
    assert LLAMA_CPP.key == "0.3.36-832db069"
