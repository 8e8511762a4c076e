"""Starting an engine's programs: what is learned, and how each way to fail is told."""

import sys

import psutil
import pytest
from engine_support import DISAGREES, NO_RPC, SIGILL, VERSION, real_files, rpc_server, stand_in, starts, write_program

from synaptic.backends.distributed.engine.engine import engine_command, identify, locate
from synaptic.backends.distributed.engine.examine import examine
from synaptic.errors import EngineUnavailable
from synaptic.processes.child import ChildProcess


async def test_what_an_engine_says_of_itself(tmp_path):
    facts = await examine(locate(stand_in(tmp_path)))
    assert facts.version == VERSION and facts.commit == "0c1e57098"
    assert facts.rpc_version == "7.0.0"
    assert facts.backends == ("RPC", "CPU") and facts.cpu_variant == "haswell"
    assert facts.devices == ("GPU0: a graphics card (1000 MiB, 900 MiB free)",)


async def test_nothing_is_left_running(tmp_path):
    await examine(locate(stand_in(tmp_path)))
    left = [process for process in psutil.Process().children(recursive=True) if process.status() != "zombie"]
    assert [process for process in left if str(tmp_path) in " ".join(process.cmdline())] == []


async def test_programs_run_in_the_engines_directory(tmp_path, monkeypatch):
    """ggml would load what looks like a backend in the current one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    files = locate(stand_in(tmp_path / "engine"))
    await examine(files)
    assert starts(files.directory) and all(line.startswith(f"{files.directory} ") for line in starts(files.directory))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_programs_run_with_sigpipe_ignored(tmp_path):
    stand_in(tmp_path)
    program = write_program(tmp_path / "llama-server", "#!/bin/sh\ngrep SigIgn /proc/self/status\n")
    child = await ChildProcess.start(engine_command(locate(tmp_path), program, ()))
    try:
        line = await child.read_line()
    finally:
        await child.stop()
    assert line is not None and int(line.split()[1], 16) & (1 << 12)  # 13 is SIGPIPE


@pytest.mark.parametrize("program", ["server", "rpc"])
async def test_a_build_for_another_cpu_is_recognised(tmp_path, program):
    with pytest.raises(EngineUnavailable, match="SIGILL: it uses instructions that this CPU does not have") as caught:
        await examine(locate(stand_in(tmp_path, **{program: SIGILL})))
    assert "built for another CPU" in (caught.value.hint or "")


async def test_programs_that_do_not_agree_are_named_with_the_version(tmp_path):
    with pytest.raises(EngineUnavailable, match=r"do not agree: ggml-rpc-server speaks version 7\.0\.0"):
        await examine(locate(stand_in(tmp_path, server=DISAGREES)))


async def test_a_server_without_rpc_is_told_how_to_get_it(tmp_path):
    with pytest.raises(EngineUnavailable, match="was built without RPC") as caught:
        await examine(locate(stand_in(tmp_path, server=NO_RPC)))
    assert "-DGGML_RPC=ON" in (caught.value.hint or "")


async def test_an_rpc_server_from_before_the_versions_is_refused(tmp_path):
    with pytest.raises(EngineUnavailable, match="names no version of its protocol"):
        await examine(locate(stand_in(tmp_path, rpc=rpc_server(None))))


MISSING = "error while loading shared libraries: libggml.so: cannot open shared object file"


@pytest.mark.parametrize(
    ("program", "text", "said"),
    [
        ("server", f"#!/bin/sh\necho 'x: {MISSING}' >&2\nexit 127\n", f"exited with status 127 and said: x: {MISSING}"),
        ("server", "#!/bin/sh\necho hello\n", "llama-server does not start: it exited with status 0 and said: hello"),
        ("server", "no program\n", "llama-server does not start: it exited with status 126 and said: .*Exec format"),
        (
            "rpc",
            "#!/bin/sh\necho No devices found >&2\nexit 1\n",
            "no code for this CPU: it exited with status 1 and said: No dev",
        ),
        ("rpc", "#!/bin/sh\nexit 0\n", "ggml-rpc-server does not start: it exited with status 0"),
        ("rpc", "#!/bin/sh\nkill -SEGV $$\n", "it was killed by SIGSEGV"),
    ],
)
async def test_a_program_that_does_not_start_is_quoted(tmp_path, program, text, said):
    with pytest.raises(EngineUnavailable, match=said):
        await examine(locate(stand_in(tmp_path, **{program: text})))


async def test_the_real_engine_works_and_its_copy_is_the_same_one():
    files = real_files()
    facts = await examine(files)
    assert facts.commit and facts.rpc_version.count(".") == 2
    assert {"RPC", "CPU"} <= set(facts.backends)
    assert facts.cpu_variant in files.cpu_variants
    assert len(identify(files, facts.rpc_version)) == 64
