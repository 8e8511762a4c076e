"""``synaptic engine`` as a person runs it, and what it shows."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest
from cli_support import MAIN, PATIENCE, run_here
from engine_support import NEEDS_CMAKE, SIGILL, VERSION, real_files, sdist, stand_in

from synaptic import paths
from synaptic.backends.distributed.engine.build import BuildOrder
from synaptic.backends.distributed.engine.builds import builder, running_builds
from synaptic.backends.distributed.engine.progress import EngineProgress, ignore_progress
from synaptic.backends.distributed.engine.store import EngineManifest, write_manifest
from synaptic.ui.screen.engine_view import BuildView, progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def built(key: str = "1.0-cpu") -> str:
    directory = stand_in(paths.engine_dir() / key)
    manifest = EngineManifest(
        key=key, version="1.0", commit="0c1e57098", acceleration="cpu", installed_at=1.0, build_seconds=60.0
    )
    write_manifest(directory, manifest)
    return str(directory)


def test_without_an_engine_status_says_what_to_do():
    outcome = run_here("engine", "status")
    assert outcome.code == 3 and outcome.out == ""
    assert "no engine is installed" in outcome.err and "hint: run: synaptic engine install" in outcome.err
    document = json.loads(run_here("engine", "status", "--json").out)
    assert document["works"] is False and document["installed"] == []


def test_status_shows_what_an_engine_is():
    directory = built()
    outcome = run_here("engine", "status")
    assert outcome.code == 0 and outcome.err == ""
    for text in (directory, VERSION, "protocol 7.0.0", "RPC, CPU", "haswell of haswell, zen4", "GPU0: a graphics card"):
        assert text in outcome.out
    document = json.loads(run_here("engine", "status", "--json").out)
    assert document["works"] is True and document["rpc_version"] == "7.0.0" and len(document["identity"]) == 64
    assert document["installed"][0]["directory"] == directory


def test_status_starts_the_engine_even_if_it_is_known():
    directory = built()
    assert run_here("engine", "status").code == 0
    program = paths.engine_dir() / "1.0-cpu/ggml-rpc-server"
    before = program.stat()
    program.write_text(SIGILL.ljust(before.st_size, "#"))
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))  # the file looks as it did
    outcome = run_here("engine", "status")
    assert outcome.code == 3 and "SIGILL" in outcome.err and directory in outcome.err


def test_status_says_that_a_build_runs():
    built()
    with builder("2.0-cpu", ignore_progress) as publish:
        assert publish is not None
        publish(progress(0.42, detail="42 of 100 steps", elapsed=30.0, remaining=60.0))
        outcome = run_here("engine", "status")
        document = json.loads(run_here("engine", "status", "--json").out)
    said = f"2.0-cpu: process {os.getpid()} builds this engine: building llama.cpp: 42 % (42 of 100 steps), 30 s"
    assert outcome.code == 0 and said in " ".join(outcome.out.split())
    assert document["works"] is True and document["building"] == [
        {
            "engine": "2.0-cpu",
            "process": os.getpid(),
            "stage": "building",
            "share": 0.42,
            "detail": "42 of 100 steps",
            "elapsed_seconds": 30.0,
            "remaining_seconds": 60.0,
        }
    ]
    assert json.loads(run_here("engine", "status", "--json").out)["building"] == []


def test_status_says_that_the_first_engine_is_being_built():
    with builder("2.0-cpu", ignore_progress) as publish:
        assert publish is not None
        outcome = run_here("engine", "status")
        assert outcome.code == 3 and "2.0-cpu: starting" in outcome.out and "no engine is installed" in outcome.err
        publish(progress(None, "configuring"))
        document = json.loads(run_here("engine", "status", "--json").out)
    assert document["works"] is False and document["building"][0]["stage"] == "configuring"


@NEEDS_CMAKE
def test_an_installation_that_waits_shows_the_other_one_and_can_be_interrupted():
    with builder(BuildOrder().key, ignore_progress) as publish:
        assert publish is not None
        publish(progress(0.42))
        command = [sys.executable, MAIN, "engine", "install"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout is not None and waiting.stderr is not None
            said = f"process {os.getpid()} builds this engine: building llama.cpp: 42 %\n"
            assert waiting.stderr.readline() == said
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(PATIENCE) == 130 and waiting.stdout.read() == ""
        assert [build.engine for build in running_builds()] == [BuildOrder().key]


def test_an_engine_is_adopted_and_given_up(tmp_path):
    mine = stand_in(tmp_path / "llama.cpp/build/bin")
    here = built()
    adopted = run_here("engine", "use", str(tmp_path / "llama.cpp"))
    assert adopted.code == 0 and f"{mine} (adopted)" in adopted.out
    status = run_here("engine", "status")
    assert str(mine) in status.out and f"also built here: {here}" in status.err
    back = run_here("engine", "use", "--none")
    assert back.code == 0 and f"{mine} is not used any more" in back.out
    assert here in run_here("engine", "status").out
    assert "no engine was adopted" in run_here("engine", "use", "--none").out


def test_a_build_for_another_cpu_is_not_adopted(tmp_path):
    outcome = run_here("engine", "use", str(stand_in(tmp_path, server=SIGILL)))
    assert outcome.code == 3 and "SIGILL" in outcome.err and "built for another CPU" in outcome.err
    assert not paths.engine_choice_file().exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("use",), "name the directory that the engine is in"),
        (("use", ".", "--none"), "not both"),
        (("use", "nowhere"), "nowhere does not exist"),
        (("install", "--source", "nowhere.tar.gz"), "cannot read"),
        (("install", "--jobs", "0"), "0 is not in the range"),
    ],
)
def test_wrong_usage_is_exit_2(arguments, said, tmp_path):
    outcome = run_here("engine", *arguments, cwd=tmp_path)
    if "CMake" in outcome.err:
        pytest.skip("this machine has no tools for a build, which is said first")
    assert outcome.code == 2 and said in outcome.err
    assert "Traceback" not in outcome.err


@NEEDS_CMAKE
def test_another_archive_than_the_pinned_one_is_not_built(tmp_path):
    outcome = run_here("engine", "install", "--source", str(sdist(tmp_path).archive))
    assert outcome.code == 3
    assert "is not llama_cpp_python-0.3.36.tar.gz as it was published" in outcome.err


def test_the_commands_are_in_the_help():
    assert "engine " in run_here("--help").out
    out = run_here("engine", "install", "--help").out
    assert all(option in out for option in ("--cuda", "--vulkan", "--metal", "--jobs", "--force", "--source"))


def test_the_real_engine_is_shown():
    directory = str(real_files().directory)
    assert run_here("engine", "use", directory).code == 0
    outcome = run_here("engine", "status", "--json")
    document = json.loads(outcome.out)
    assert outcome.code == 0 and document["works"] and document["directory"] == directory
    assert {"RPC", "CPU"} <= set(document["backends"]) and document["cpu_variant"] in document["cpu_variants"]


def progress(share: float | None, stage: str = "building", **values) -> EngineProgress:
    return EngineProgress(stage=stage, share=share, **values)


def test_progress_is_one_line_a_quarter_where_nobody_watches():
    err = io.StringIO()
    view = BuildView(err)
    view(progress(None, "unpacking"))
    for step in range(101):
        view(progress(step / 100, detail=f"{step} of 100 steps", elapsed=step, remaining=200.0))
    view.close()
    lines = err.getvalue().splitlines()
    assert lines[0] == "unpacking …" and len(lines) == 6
    assert lines[2] == "building llama.cpp: 25 % (25 of 100 steps), 25 s, about 3 min left"


def test_progress_is_one_changing_line_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    view = BuildView(err)
    view(progress(0.1))
    view(progress(0.2))
    view.close()
    assert err.getvalue() == "\r\x1b[Kbuilding llama.cpp: 10 %\r\x1b[Kbuilding llama.cpp: 20 %\r\x1b[K"


def test_quiet_is_quiet():
    err = Terminal()
    view = BuildView(err, quiet=True)
    view(progress(0.1))
    view.close()
    assert err.getvalue() == ""


def test_the_parts_of_a_line():
    assert progress_line(progress(1.0, elapsed=125.0)) == "building llama.cpp: 100 %, 2 min 5 s"
    assert progress_line(progress(0.0)) == "building llama.cpp: 0 %"


def test_an_adopted_engine_is_told_as_data_and_verified(tmp_path):
    mine = stand_in(tmp_path / "bin")
    assert json.loads(run_here("engine", "use", str(mine), "--json").out)["directory"] == str(mine)
    whole = json.loads(run_here("engine", "verify", "--json").out)
    assert whole["whole"] is True and whole["directory"] == str(mine)
    assert run_here("engine", "verify", "--quiet").out == ""
    (mine / "libggml.so").write_bytes(b"another")
    changed = run_here("engine", "verify")
    assert changed.code == 3 and f"fix: synaptic engine install, or, if you know why: synaptic engine use {mine}" in (
        " ".join(changed.out.split())
    )
    assert json.loads(run_here("engine", "verify", "--json").out)["whole"] is False
    assert f"the engine in {mine}: " in " ".join(run_here("doctor", "--deep").out.split())
    assert json.loads(run_here("engine", "use", "--none", "--json").out) == {"forgotten": str(mine)}


@NEEDS_CMAKE
def test_an_engine_that_is_there_is_not_built_again(tmp_path):
    here = built(BuildOrder().key)
    outcome = run_here("engine", "install")
    assert outcome.code == 0 and here in outcome.out and "is installed already" in outcome.err
    assert json.loads(run_here("engine", "install", "--json").out)["was_there"] is True
    mine = stand_in(tmp_path / "bin")
    assert run_here("engine", "use", str(mine)).code == 0
    quiet = run_here("engine", "install", "--quiet")
    assert quiet.out.strip() == here and quiet.err == ""
    assert f"in use is the one in {mine}" in " ".join(run_here("engine", "install").err.split())
