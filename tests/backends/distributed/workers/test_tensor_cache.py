"""The books of the tensor cache: only whole tensors are shown to a worker, and no more than fit."""

import os
import shutil
from pathlib import Path

import pytest

from synaptic.backends.distributed.workers import tensor_cache
from synaptic.backends.distributed.workers.fnv import Fnv, fnv1a
from synaptic.backends.distributed.workers.tensor_cache import TensorCache, TensorView
from synaptic.backends.distributed.workers.tensor_cache_files import THRESHOLD
from synaptic.errors import EngineUnavailable

SIZE = THRESHOLD + 4096


def tensor(seed: int, size: int = SIZE) -> bytes:
    return bytes([seed]) * size


@pytest.fixture(name="cache")
def a_cache(tmp_path: Path) -> TensorCache:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    return TensorCache(tmp_path / "tensors")


def digest(cache: TensorCache, data: bytes) -> str:
    file = cache.root.parent / "scratch"
    file.write_bytes(data)
    return Fnv(cache.root).of_range(file, 0, len(data)) or ""


def write_as_a_worker(view: TensorView, name: str, data: bytes, *, age: float = 60.0) -> Path:
    """What the RPC server does: it writes in place, under the digest that the tensor has."""
    file = view.directory / "rpc" / name
    file.write_bytes(data)
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))
    return file


def shown(view: TensorView) -> set[str]:
    return {file.name for file in (view.directory / "rpc").iterdir()}


def reopened(cache: TensorCache, view: TensorView, name: str = "w") -> TensorView:
    view.release()
    again = TensorCache(cache.root, limit_bytes=cache.limit_bytes).open_view(name)
    assert again.prepare(quick=False)
    return again


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", "cbf29ce484222325"), (b"a", "af63dc4c8601ec8c"), (b"foobar", "85944171f73967e8")],
)
def test_the_digest_is_fnv_1a(cache: TensorCache, data: bytes, expected: str):
    """Values of the algorithm's authors."""
    assert fnv1a(data) == expected
    assert digest(cache, data) == expected


def test_the_digest_of_a_part_of_a_file(cache: TensorCache, tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"xx" + tensor(3, 3_000_000) + b"yy")
    fnv = Fnv(cache.root)
    assert fnv.of_range(file, 2, 3_000_000) == digest(cache, tensor(3, 3_000_000))
    assert fnv.of_range(file, 2, 3_000_003) is None
    with pytest.raises(FileNotFoundError):
        fnv.of_range(tmp_path / "none", 0, 1)
    with pytest.raises(OSError, match="cannot be read"):
        fnv.of_range(tmp_path, 0, 1)


def test_without_a_compiler_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(EngineUnavailable, match="needs a C compiler once"):
        TensorCache(tmp_path / "tensors").open_view("w")


@pytest.mark.parametrize("compiler", ["#!/bin/sh\nexit 0\n", "#!/bin/sh\necho 'no headers' >&2\nexit 1\n"])
def test_a_compiler_that_does_not_work_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str):
    program = tmp_path / "mycc"
    program.write_text(compiler)
    program.chmod(0o755)
    monkeypatch.setenv("CC", "mycc")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EngineUnavailable, match="cannot be compiled or loaded"):
        Fnv(tmp_path / "tensors")


def test_what_a_worker_wrote_is_shown_to_the_next_one(cache: TensorCache):
    view = cache.open_view("w")
    assert view.prepare(quick=False)
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    view = reopened(cache, view)
    assert shown(view) == {name}
    other = cache.open_view("w")
    assert other.directory != view.directory
    assert other.prepare(quick=False)
    assert shown(other) == {name}
    assert cache.names() == {name}
    assert cache.size_bytes() == SIZE


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: SIZE // 2], id="small"),
        pytest.param(lambda data: data[:-1], id="short"),
        pytest.param(lambda data: data + b"x", id="long"),
        pytest.param(lambda data: data[:5000] + b"\xff" + data[5001:], id="a flipped byte"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_a_damaged_file_is_never_shown(cache: TensorCache, damage, *, quick: bool):
    """Damaged when it was written, or later in the store, where the worker's file is a link to the same bytes."""
    view = cache.open_view("w")
    view.prepare(quick=False)
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, damage(tensor(1)))
    assert view.prepare(quick=quick)
    assert shown(view) == set()
    write_as_a_worker(view, name, tensor(1))
    assert view.prepare(quick=quick)
    assert shown(view) == {name}
    stored = cache.root / "store" / name
    stored.chmod(0o644)
    with stored.open("r+b") as file:
        file.write(damage(tensor(1)))
        file.truncate(len(damage(tensor(1))))
    assert view.prepare(quick=quick)
    assert shown(view) == set()
    view.release()


def test_what_is_no_tensor_is_removed(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare(quick=False)
    for name in ("README", "0123456789abcdeF", "0123456789abcdef.tmp", "0123456789abcdef"):
        write_as_a_worker(view, name, tensor(1))
    (view.directory / "rpc" / "fedcba9876543210").mkdir()
    assert not view.prepare(quick=False) or shown(view) == set()
    (view.directory / "rpc" / "fedcba9876543210").rmdir()
    assert view.prepare(quick=False)
    assert shown(view) == set()


def test_verified_bytes_are_not_read_again_while_the_file_is_the_same(cache: TensorCache, monkeypatch):
    view = cache.open_view("w")
    view.prepare(quick=False)
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    view.prepare(quick=False)
    read: list[str] = []
    of_range = Fnv.of_range
    monkeypatch.setattr(
        Fnv, "of_range", lambda self, file, *rest: read.append(file.name) or of_range(self, file, *rest)
    )
    view = reopened(cache, view)
    assert shown(view) == {name}
    assert name not in read
    os.utime(cache.root / "store" / name)
    assert view.prepare(quick=False)
    assert shown(view) == {name}
    assert name in read


def test_a_lost_index_costs_reading_and_nothing_else(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare(quick=False)
    name, wrong = digest(cache, tensor(1)), digest(cache, tensor(2))
    write_as_a_worker(view, name, tensor(1))
    view = reopened(cache, view)
    (cache.root / "store" / "index.json").write_text("{not json")
    (cache.root / "store" / wrong).write_bytes(tensor(3))
    view = reopened(cache, view)
    assert shown(view) == {name}
    assert cache.names() == {name}
    assert not (cache.root / "store" / wrong).exists()


def test_adopting_takes_what_is_whole_and_old_enough_while_the_worker_runs(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare(quick=False)
    names = [digest(cache, tensor(seed)) for seed in (1, 2, 3)]
    write_as_a_worker(view, names[0], tensor(1))
    write_as_a_worker(view, names[1], tensor(2), age=0.0)
    write_as_a_worker(view, names[2], tensor(3)[:-9])
    view.adopt()
    assert cache.names() == {names[0]}
    assert shown(view) == {names[0], names[1]}
    view.adopt(settled=0.0)
    assert cache.names() == {names[0], names[1]}
    view.adopt(settled=0.0)


def test_the_least_recently_used_go_first(cache: TensorCache):
    cache.limit_bytes = 2 * SIZE + SIZE // 2
    view = cache.open_view("w")
    view.prepare(quick=False)
    names = [digest(cache, tensor(seed)) for seed in (1, 2, 3)]
    for seed, name in enumerate(names[:2], 1):
        write_as_a_worker(view, name, tensor(seed))
        view.adopt()
    # A worker reads the first. The system may note no reads at all, so it is written down as it would be.
    stored = cache.root / "store" / names[0]
    os.utime(stored, ns=(stored.stat().st_mtime_ns + 10**18, stored.stat().st_mtime_ns))
    write_as_a_worker(view, names[2], tensor(3))
    view.adopt()
    assert cache.names() == {names[0], names[2]}
    assert shown(view) == {names[0], names[2]}
    assert {file.name for file in (cache.root / "store").iterdir() if file.name[0] != "."} == {
        *cache.names(),
        "index.json",
    }


def test_a_start_in_a_hurry_puts_off_what_takes_long(cache: TensorCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensor_cache, "QUICK_BYTES", SIZE)
    view = cache.open_view("w")
    view.prepare(quick=False)
    names = sorted(digest(cache, tensor(seed)) for seed in (1, 2))
    for seed in (1, 2):
        write_as_a_worker(view, digest(cache, tensor(seed)), tensor(seed))
    assert view.prepare(quick=True)
    assert shown(view) == {names[0]}
    view = reopened(cache, view)
    assert shown(view) == set(names)


def test_what_a_process_that_was_killed_left_is_taken_over(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare(quick=False)
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    write_as_a_worker(view, digest(cache, tensor(2)), tensor(2)[:-1])
    in_use = cache.open_view("busy")
    in_use.prepare(quick=False)
    view.release()
    other = cache.open_view("other")
    assert other.prepare(quick=False)
    assert shown(other) == {name}
    assert not view.directory.exists()
    assert in_use.directory.exists()


def test_tensors_of_a_local_model_are_put_there_before_anybody_sends_them(cache: TensorCache, tmp_path: Path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"head" + tensor(1) + tensor(2) + tensor(3, 500))
    tensors = [
        ("a", 4, SIZE, file),
        ("b", 4 + SIZE, SIZE, file),
        ("same", 4, SIZE, file),
        ("small", 4 + 2 * SIZE, 500, file),
    ]
    assert cache.prefill(tensors) == 2 * SIZE
    names = {digest(cache, tensor(1)), digest(cache, tensor(2))}
    assert cache.names() == names
    assert cache.prefill(tensors) == 0
    (cache.root / "store" / digest(cache, tensor(1))).unlink()
    assert cache.prefill(tensors) == 0, "nobody has noticed yet"
    assert cache.prefill(tensors) == SIZE
    view = cache.open_view("w")
    assert view.prepare(quick=False)
    assert shown(view) == names
    with pytest.raises(OSError, match="ends before its last tensor does"):
        cache.prefill([("cut", 4 + 2 * SIZE, SIZE, file)])


def test_leftovers_of_a_copy_are_removed_when_they_are_old(cache: TensorCache):
    view = cache.open_view("w")
    old, new = cache.root / "store" / ".coming-1-a", cache.root / "store" / ".coming-2-b"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert view.prepare(quick=False)
    assert not old.exists()
    assert new.exists()


def test_no_room_for_the_books_means_an_empty_cache_and_no_error(cache: TensorCache, monkeypatch: pytest.MonkeyPatch):
    view = cache.open_view("w")
    view.prepare(quick=False)
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synaptic.backends.distributed.workers.tensor_cache_files.replace_json", full)
    assert view.prepare(quick=False)
    assert shown(view) == set()
    file = cache.root.parent / "model"
    file.write_bytes(tensor(2))
    with pytest.raises(OSError, match="No space left"):
        cache.prefill([("a", 0, SIZE, file)])
    assert [one for one in (cache.root / "store").iterdir() if one.name.startswith(".coming")] == []


def test_only_so_many_workers_of_one_name(cache: TensorCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensor_cache, "VIEWS_OF_A_NAME", 1)
    view = cache.open_view("w")
    with pytest.raises(OSError, match="1 workers of this name use it"):
        cache.open_view("w")
    view.release()
    cache.open_view("w").release()
