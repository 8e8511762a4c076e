"""The store of the tensor cache: only whole tensors are shown to a worker, and no more than fit."""

import os
import threading
from pathlib import Path

import pytest
from flipped_bytes import flip_byte
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.distributed.workers import tensor_cache
from synaptic.backends.distributed.workers.tensor_cache import TensorCache, TensorView
from synaptic.backends.distributed.workers.tensor_digest import BLOCK_BYTES, OFFSET_BASIS, PRIME, file_digest, fnv1a

THRESHOLD = 64 * 1024
"""Instead of 10 MiB, so that the tests read less."""
SIZE = THRESHOLD + 4096


def tensor(seed: int, size: int = SIZE) -> bytes:
    return bytes([seed]) * size


@pytest.fixture(name="cache")
def a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorCache:
    monkeypatch.setattr(tensor_cache, "THRESHOLD", THRESHOLD)
    return TensorCache(tmp_path / "tensors")


def digest(cache: TensorCache, data: bytes) -> str:
    file = cache.root.parent / "scratch"
    file.write_bytes(data)
    return file_digest(file, 0, len(data)) or ""


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
    assert again.prepare()
    return again


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", "cbf29ce484222325"), (b"a", "af63dc4c8601ec8c"), (b"foobar", "85944171f73967e8")],
)
def test_the_digest_is_fnv_1a(cache: TensorCache, data: bytes, expected: str):
    """Values of the algorithm's authors."""
    assert f"{fnv1a(data):016x}" == expected
    assert digest(cache, data) == expected


def slow_fnv1a(data: bytes, value: int) -> int:
    """The algorithm as its authors wrote it."""
    for byte in data:
        value = ((value ^ byte) * PRIME) & 0xFFFF_FFFF_FFFF_FFFF
    return value


@given(
    data=st.binary(max_size=400) | st.integers(0, 400).map(lambda count: b"\xff" * count), before=st.binary(max_size=3)
)
def test_the_digest_is_that_of_the_plain_loop(data: bytes, before: bytes):
    start = slow_fnv1a(before, OFFSET_BASIS)
    assert fnv1a(data, start) == slow_fnv1a(data, start)


def test_the_digest_goes_on_from_block_to_block(tmp_path: Path):
    file, data = tmp_path / "file", bytes(range(256)) * (BLOCK_BYTES // 256) + b"more than one block"
    file.write_bytes(data)
    assert file_digest(file, 0, len(data)) == f"{slow_fnv1a(data, OFFSET_BASIS):016x}"


def test_the_digest_of_a_part_of_a_file(cache: TensorCache, tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"xx" + tensor(3, 3_000_000) + b"yy")
    assert file_digest(file, 2, 3_000_000) == digest(cache, tensor(3, 3_000_000))
    assert file_digest(file, 2, 3_000_003) is None
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "none", 0, 1)
    with pytest.raises(IsADirectoryError):
        file_digest(tmp_path, 0, 1)


def test_a_digest_can_be_interrupted(tmp_path: Path):
    file, stop = tmp_path / "file", threading.Event()
    file.write_bytes(b"x")
    assert file_digest(file, 0, 1, stop) is not None
    stop.set()
    with pytest.raises(InterruptedError):
        file_digest(file, 0, 1, stop)


def test_no_compiler_is_needed(cache: TensorCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    view = cache.open_view("w")
    assert view.prepare()
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    assert view.prepare()
    assert shown(view) == {name}


def test_what_a_worker_wrote_is_shown_to_the_next_one(cache: TensorCache):
    view = cache.open_view("w")
    assert view.prepare()
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    view = reopened(cache, view)
    assert shown(view) == {name}
    other = cache.open_view("w")
    assert other.directory != view.directory
    assert other.prepare()
    assert shown(other) == {name}
    assert cache.names() == {name}


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
def test_a_damaged_file_is_never_shown(cache: TensorCache, damage):
    """Damaged when it was written, or later in the store, where the worker's file is a link to the same bytes."""
    view = cache.open_view("w")
    view.prepare()
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, damage(tensor(1)))
    assert view.prepare()
    assert shown(view) == set()
    write_as_a_worker(view, name, tensor(1))
    assert view.prepare()
    assert shown(view) == {name}
    stored = cache.root / "store" / name
    stored.chmod(0o644)
    with stored.open("r+b") as file:
        file.write(damage(tensor(1)))
        file.truncate(len(damage(tensor(1))))
    assert view.prepare()
    assert shown(view) == set()
    view.release()


def test_what_is_no_tensor_is_removed(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare()
    for name in ("README", "0123456789abcdeF", "0123456789abcdef.tmp", "0123456789abcdef"):
        write_as_a_worker(view, name, tensor(1))
    (view.directory / "rpc" / "fedcba9876543210").mkdir()
    assert not view.prepare() or shown(view) == set()
    (view.directory / "rpc" / "fedcba9876543210").rmdir()
    assert view.prepare()
    assert shown(view) == set()


def test_verified_bytes_are_not_read_again_while_the_file_is_the_same(cache: TensorCache, monkeypatch):
    view = cache.open_view("w")
    view.prepare()
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    view.prepare()
    read: list[str] = []
    monkeypatch.setattr(
        tensor_cache, "file_digest", lambda file, *rest: read.append(file.name) or file_digest(file, *rest)
    )
    view = reopened(cache, view)
    assert shown(view) == {name}
    assert name not in read
    os.utime(cache.root / "store" / name)
    assert view.prepare()
    assert shown(view) == {name}
    assert name in read


def test_a_lost_manifest_costs_reading_and_nothing_else(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare()
    name, wrong = digest(cache, tensor(1)), digest(cache, tensor(2))
    write_as_a_worker(view, name, tensor(1))
    view = reopened(cache, view)
    (cache.root / "store" / "manifest.json").write_text("{not json")
    (cache.root / "store" / wrong).write_bytes(tensor(3))
    view = reopened(cache, view)
    assert shown(view) == {name}
    assert cache.names() == {name}
    assert not (cache.root / "store" / wrong).exists()


def test_adopting_takes_what_is_whole_and_old_enough_while_the_worker_runs(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare()
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
    view.prepare()
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
        "manifest.json",
    }


@pytest.mark.parametrize("ended", [False, True])
def test_a_start_puts_off_what_takes_long(cache: TensorCache, monkeypatch: pytest.MonkeyPatch, *, ended: bool):
    monkeypatch.setattr(tensor_cache, "VERIFIED_AT_ONCE", SIZE)
    view = cache.open_view("w")
    view.prepare()
    names = sorted(digest(cache, tensor(seed)) for seed in (1, 2))
    for seed in (1, 2):
        write_as_a_worker(view, digest(cache, tensor(seed)), tensor(seed))
    assert view.prepare()
    assert shown(view) == {names[0]}
    if ended:
        view = reopened(cache, view)
    else:
        view.adopt()
    assert shown(view) == set(names)
    assert not list((view.directory / "unverified").iterdir())


def test_a_lost_manifest_is_made_again_bit_by_bit(cache: TensorCache, monkeypatch: pytest.MonkeyPatch):
    view = cache.open_view("w")
    names = sorted(digest(cache, tensor(seed)) for seed in (1, 2))
    for seed in (1, 2):
        write_as_a_worker(view, digest(cache, tensor(seed)), tensor(seed))
    assert view.prepare()
    view.release()
    (cache.root / "store" / "manifest.json").unlink()
    monkeypatch.setattr(tensor_cache, "VERIFIED_AT_ONCE", SIZE)
    other = cache.open_view("other")
    assert other.prepare()
    assert names[0] in shown(other)
    assert other.prepare()
    assert shown(other) == set(names)


def test_a_release_ends_what_goes_on_and_loses_nothing(cache: TensorCache):
    view = cache.open_view("w")
    assert view.prepare()
    name = digest(cache, tensor(1))
    file = write_as_a_worker(view, name, tensor(1))
    view.release()
    view.release()
    assert not view.prepare()
    view.adopt()
    assert file.exists()
    assert cache.names() == frozenset()
    view = cache.open_view("w")
    assert view.prepare()
    assert shown(view) == {name}


def test_what_a_process_that_was_killed_left_is_taken_over(cache: TensorCache):
    view = cache.open_view("w")
    view.prepare()
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))
    write_as_a_worker(view, digest(cache, tensor(2)), tensor(2)[:-1])
    in_use = cache.open_view("busy")
    in_use.prepare()
    view.release()
    other = cache.open_view("other")
    assert other.prepare()
    assert shown(other) == {name}
    assert not view.directory.exists()
    assert in_use.directory.exists()


def test_tensors_of_a_local_model_are_put_there_before_a_coordinator_sends_them(cache: TensorCache, tmp_path: Path):
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
    assert cache.prefill(tensors) == SIZE
    assert cache.prefill(tensors) == 0
    view = cache.open_view("w")
    assert view.prepare()
    assert shown(view) == names
    with pytest.raises(OSError, match="ends before its last tensor does"):
        cache.prefill([("cut", 4 + 2 * SIZE, SIZE, file)])


def test_leftovers_of_a_copy_are_removed_when_they_are_old(cache: TensorCache):
    view = cache.open_view("w")
    old, new = cache.root / "store" / ".coming-1-a", cache.root / "store" / ".coming-2-b"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert view.prepare()
    assert not old.exists()
    assert new.exists()


def test_no_room_for_the_manifest_means_an_empty_cache_and_no_error(
    cache: TensorCache, monkeypatch: pytest.MonkeyPatch
):
    view = cache.open_view("w")
    view.prepare()
    name = digest(cache, tensor(1))
    write_as_a_worker(view, name, tensor(1))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synaptic.backends.distributed.workers.tensor_cache.replace_json", full)
    assert view.prepare()
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


def test_a_tensor_that_another_process_admits_meanwhile_disturbs_no_reader(cache: TensorCache, monkeypatch):
    manifests = iter(
        [tensor_cache.CacheManifest(), tensor_cache.CacheManifest({"00" * 8: tensor_cache.Stamp(1, 1, 1, 0)})]
    )
    monkeypatch.setattr(cache, "_read", lambda: next(manifests))

    assert cache.trusted() == {}
    assert cache.trusted() == {}


def test_a_worker_keeps_its_good_copy_of_a_tensor_that_was_damaged_in_the_store(cache: TensorCache):
    data = tensor(7)
    name = digest(cache, data)
    view = cache.open_view("w")
    write_as_a_worker(view, name, data)
    view.adopt()
    stored = cache.root / "store" / name
    stored.chmod(0o644)
    other = cache.open_view("v")
    copy = write_as_a_worker(other, name, data)
    stored.write_bytes(tensor(8))

    cache.admit([copy])

    assert cache.trusted()[name].read_bytes() == data
    assert copy.read_bytes() == data
    other.release()
    view.release()


def test_a_tensor_larger_than_what_is_verified_at_once_gets_its_turn(cache: TensorCache, monkeypatch):
    names = set()
    view = cache.open_view("w")
    for seed in range(3):
        names.add(digest(cache, tensor(seed)))
        write_as_a_worker(view, digest(cache, tensor(seed)), tensor(seed))
    view.adopt()
    (cache.root / "store" / "manifest.json").unlink()
    monkeypatch.setattr(tensor_cache, "VERIFIED_AT_ONCE", SIZE // 2)

    again = reopened(cache, view)
    again.adopt()

    assert cache.names() == names
    again.release()


def test_what_decays_without_another_time_is_found_by_reading_everything(cache: TensorCache):
    view = cache.open_view("w")
    names = [digest(cache, tensor(number)) for number in (1, 2)]
    for number, name in enumerate(names, 1):
        write_as_a_worker(view, name, tensor(number))
    view.adopt()
    view = reopened(cache, view)
    assert shown(view) == set(names)
    file = cache.root / "store" / names[0]
    status = file.stat()
    flip_byte(file, 1000)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    heard: list[tuple[int, int]] = []

    assert cache.verify(lambda done, total: heard.append((done, total))) == (1, 1)

    assert heard == [(SIZE, 2 * SIZE), (2 * SIZE, 2 * SIZE)]
    assert cache.names() == {names[1]}
    assert shown(view) == {names[1]}
    assert cache.verify() == (1, 0)
    view.release()
    assert TensorCache(cache.root.parent / "nothing").verify() == (0, 0)
