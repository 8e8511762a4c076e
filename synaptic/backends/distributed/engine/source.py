"""The source that engines are built from: llama.cpp's tree inside the source distribution of ``llama-cpp-python``.

It is fetched through pip's ordinary client. pip never only fetches a source distribution, it also asks the build
backend for the distribution's name and version, for which it would first install that backend. Both are known here,
so with build isolation off pip is given a backend that answers just this: nothing more is fetched, and no code out of
the archive runs before its checksum was found right (by pip, and again by us).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from synaptic.backends.distributed.engine import recipe
from synaptic.backends.distributed.engine.progress import EngineProgress
from synaptic.errors import EngineUnavailable, UsageError
from synaptic.models import bytes_under, why_not_fetched
from synaptic.processes import ChildProcess, child_environment, run_to_its_end, sha256_of, tied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from synaptic.backends.distributed.engine.progress import EngineReporter

PROGRESS_INTERVAL = 0.2  # seconds
CHUNK = 1 << 20
MAX_ARCHIVE_BYTES = 1 << 30
"""Ten times what it has: a longer file is another one, and is not read to its end to find that out."""

_BACKEND = """
import pathlib

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory) / "{file_stem}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info.name
"""


def leave(tree: Path) -> None:
    """Change nothing in a tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSource:
    """A source distribution that holds llama.cpp's tree.

    Attributes:
        archive_bytes: Size of the archive; what a progress bar counts up to.
        sha256: Of the archive, in hex.
        tree: Where llama.cpp is in it.
        unneeded: Directories of the tree that no build reads; most of its bytes.
        build_module: The distribution's build backend.
        adapt: Changes the unpacked tree before it is built; given its directory.
    """

    name: str
    version: str
    commit: str
    archive_bytes: int
    sha256: str
    tree: str
    unneeded: tuple[str, ...] = ()
    build_module: str = "scikit_build_core.build"
    adapt: Callable[[Path], None] = leave

    @property
    def file_name(self) -> str:
        """The archive's name."""
        return f"{self.file_stem}.tar.gz"

    @property
    def file_stem(self) -> str:
        """The archive's name without its suffix."""
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def key(self) -> str:
        """Version and content: the beginning of the names of what is built from it."""
        return f"{self.version}-{self.sha256[:8]}"


LLAMA_CPP = EngineSource(
    name="llama-cpp-python",
    version="0.3.36",
    commit="0c1e57098",
    archive_bytes=76_589_250,
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    tree="llama_cpp_python-0.3.36/vendor/llama.cpp",
    unneeded=("docs", "models", "media", "benches"),
    adapt=recipe.adapt,
)

FetchCommand = tuple["Sequence[str]", "Mapping[str, str]"]
"""A command and what its environment has besides ours."""


async def fetch(source: EngineSource, staging: Path, report: EngineReporter, elapsed: Callable[[], float]) -> Path:
    """Fetch the archive with pip, whose configuration (index, proxy, certificates) applies; return its path.

    Args:
        source: Which.
        staging: A directory to work in.
        report: Told how far it is.
        elapsed: Seconds since the fetch began.

    Raises:
        EngineUnavailable: If it cannot be fetched, or is not what was expected.
    """
    target = staging / "download"
    shutil.rmtree(target, ignore_errors=True)
    scratch = target / "scratch"
    scratch.mkdir(parents=True)
    command, environment = fetch_command(source, target)
    temporary = {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    apart = tied(command, directory=target)  # not where we are started: a uv.toml there could name another index

    def note() -> None:
        done = min(bytes_under(target), source.archive_bytes)
        report(EngineProgress(stage="fetching", share=done / source.archive_bytes, elapsed=elapsed()))

    child = await run_to_its_end(
        lambda: ChildProcess.start(apart, env=child_environment({**environment, **temporary}, installs=True)),
        note,
        every=PROGRESS_INTERVAL,
    )
    if child.returncode != 0:
        reason = why_not_fetched(child.tail) or f"pip {child.ending}"
        raise EngineUnavailable(f"the source of llama.cpp could not be fetched: {reason}", hint=_elsewhere(source))
    report(EngineProgress(stage="fetching", share=1.0, elapsed=elapsed()))
    shutil.rmtree(scratch, ignore_errors=True)
    return target / source.file_name


def fetch_command(source: EngineSource, target: Path) -> FetchCommand:
    """Write the build backend that tells pip what it wants to know; return how to fetch.

    Raises:
        EngineUnavailable: If there is neither pip nor uv, which can run pip.
    """
    requirements = target / "requirements.txt"
    requirements.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    *packages, module = source.build_module.split(".")
    place = target / "backend"
    for package in packages:
        place /= package
        place.mkdir(parents=True)
        (place / "__init__.py").touch()
    answers = _BACKEND.format(file_stem=source.file_stem, name=source.name, version=source.version)
    (place / f"{module}.py").write_text(answers, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(target / "backend"), os.environ.get("PYTHONPATH", "")]))
    pip = choose_pip(
        source, has_pip=importlib.util.find_spec("pip") is not None, uv=shutil.which("uv"), python=sys.executable
    )
    options = ["--no-deps", "--no-binary", source.name, "--no-build-isolation", "--progress-bar", "off", "--quiet"]
    files = ["--dest", str(target), "--requirement", str(requirements)]
    return [*pip, "--no-input", "--disable-pip-version-check", "download", *options, *files], {"PYTHONPATH": path}


def choose_pip(source: EngineSource, *, has_pip: bool, uv: str | None, python: str) -> list[str]:
    """Return the command that is pip: this interpreter's own, else one that uv provides.

    Raises:
        EngineUnavailable: If there is neither.
    """
    if has_pip:
        return [python, "-P", "-m", "pip"]
    if uv is not None:
        return [uv, "run", "--quiet", "--no-project", "--python", python, "--with", "pip", "python", "-m", "pip"]
    raise EngineUnavailable(
        "the source of llama.cpp cannot be fetched: this Python has neither pip nor uv", hint=_elsewhere(source)
    )


async def check_archive(source: EngineSource, archive: Path) -> None:
    """Make sure that the archive is the one that was pinned.

    Raises:
        EngineUnavailable: If it is another one.
        UsageError: If it cannot be read.
    """
    try:
        digest = await asyncio.to_thread(_digest, archive)
    except OSError as error:
        raise UsageError(f"cannot read {archive}: {error.strerror or error}", hint=_elsewhere(source)) from error
    if digest != source.sha256:
        what = f"its checksum is {digest[:16]}… instead of {source.sha256[:16]}…" if digest else "it is far too long"
        raise EngineUnavailable(
            f"{archive} is not {source.file_name} as it was published: {what}",
            hint=_elsewhere(source),
        )


def _digest(archive: Path) -> str:
    """Return the checksum of an archive; "" of a file that is too long to be one."""
    return "" if archive.stat().st_size > MAX_ARCHIVE_BYTES else sha256_of(archive)


async def unpack(source: EngineSource, archive: Path, target: Path) -> None:
    """Take llama.cpp's tree out of the archive, without what no build reads; ``target`` is whole when it is there.

    Raises:
        EngineUnavailable: If the archive is damaged, or does not hold the tree.
        OSError: If it cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    count = 0
    try:
        for count in _unpacked(source, archive, part):  # noqa: B007 - looked at after the loop
            await asyncio.sleep(0)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise EngineUnavailable(f"{archive} is damaged: {error}", hint=_elsewhere(source)) from error
    if not count:
        raise EngineUnavailable(f"{archive} does not hold {source.tree}", hint=_elsewhere(source))
    part.replace(target)


def _unpacked(source: EngineSource, archive: Path, target: Path) -> Iterator[int]:
    """Write one file after the other, and yield how many there are."""
    root = PurePosixPath(source.tree)
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not member.isfile() or not path.is_relative_to(root):
                continue
            inner = path.relative_to(root)
            if ".." in inner.parts or inner.parts[0] in source.unneeded:
                continue
            file = target / inner
            file.parent.mkdir(parents=True, exist_ok=True)
            stream = tar.extractfile(member)
            assert stream is not None
            with stream, file.open("wb") as output:
                shutil.copyfileobj(stream, output, CHUNK)
            file.chmod(0o755 if member.mode & 0o100 else 0o644)
            # A build tool compares times; those of the archive are older than anything that is built.
            os.utime(file, (member.mtime, member.mtime))
            count += 1
            yield count


def _elsewhere(source: EngineSource) -> str:
    return (
        f"try again; or fetch {source.file_name} of the Python package {source.name} elsewhere and run: "
        f"synaptic engine install --source {source.file_name}"
    )
