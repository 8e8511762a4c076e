"""What ``fuzz_property.py`` holds readers to: each way to break it is seen."""

import socket
import subprocess
import sys
from pathlib import Path

import fuzz_property
import pytest
from fuzz_property import BrokenPromise, Endless, attempt

from synaptic.errors import PipelineError, SynapticError


def hang(_: bytes, __: Path) -> None:
    while True:
        pass


def fill(_: bytes, __: Path) -> None:
    bytearray(2 * fuzz_property.MEMORY)


def fill_and_hide(_: bytes, __: Path) -> None:
    try:
        bytearray(2 * fuzz_property.MEMORY)
    except MemoryError as error:
        raise PipelineError("something went wrong") from error


def sink(data: bytes, folder: Path) -> None:
    sink(data, folder)


def leave_the_folder(_: bytes, folder: Path) -> None:
    (folder / "../../../../../../etc/hostname").read_bytes()


def leave_by_a_link(_: bytes, folder: Path) -> None:
    (folder / "x").symlink_to("/etc/hostname")
    (folder / "x").read_bytes()


def look_at_a_neighbour(_: bytes, folder: Path) -> None:
    Path(f"{folder}-beside").write_text("x", encoding="utf-8")


def connect(_: bytes, __: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("192.0.2.1", 9))


def look_up(_: bytes, __: Path) -> None:
    with pytest.raises(OSError):
        socket.getaddrinfo("name.invalid", 80)


def start(_: bytes, __: Path) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def say(text: str) -> fuzz_property.Reader:
    def speak(_: bytes, __: Path) -> None:
        raise SynapticError(text)

    return speak


@pytest.mark.parametrize(
    ("read", "raised"),
    [
        (hang, Endless),
        (fill, MemoryError),
        (fill_and_hide, BrokenPromise),
        (sink, RecursionError),
        (leave_the_folder, BrokenPromise),
        (leave_by_a_link, BrokenPromise),
        (look_at_a_neighbour, BrokenPromise),
        (connect, BrokenPromise),
        (look_up, BrokenPromise),
        (start, BrokenPromise),
        (lambda data, _: data.decode(), UnicodeDecodeError),
        (say(" "), BrokenPromise),
        (say("Traceback (most recent call last)"), BrokenPromise),
        (say("x" * 5000), BrokenPromise),
    ],
)
def test_a_broken_promise_is_seen(
    read: fuzz_property.Reader, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fuzz_property, "CPU_SECONDS", 0.2)

    with pytest.raises(raised):
        attempt(read, b"\xff")


def test_a_value_an_error_of_ours_and_files_in_the_folder_are_all_right():
    attempt(lambda data, folder: (folder / "a").write_bytes(data), b"x")
    attempt(say("no such thing"), b"x")
    attempt(lambda _, folder: (folder / "a").mkdir() or (folder / "a").rename(folder / "b"), b"x")
