"""The command line as people run it: real processes, and a real terminal."""

import asyncio
import gc
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from cli_support import ECHO, MAIN, NOTHING_THERE, PATIENCE, Outcome, node, ollama, run_here, run_process, wait_until
from fault_server import Request, finish, hang, ollama_lines, ollama_reply, respond, stream
from repl_terminal import CTRL_C, CTRL_D, CTRL_Z, ENTER, ROOT, Terminal, environment, open_terminal

from synaptic.ui import cli

# -- a question, as a process ------------------------------------------------------------------------------------


def test_the_answer_is_on_stdout_and_everything_else_on_stderr():
    outcome = run_process("hello   there", *ECHO)

    assert (outcome.code, outcome.out) == (0, "hello   there\n")
    assert outcome.err.splitlines()[0] == "answer: started (editor, scripted/scripted)"
    assert outcome.err.splitlines()[-1].startswith("answer: 0.")


def test_a_piped_text_goes_after_the_question():
    assert run_process("-q", *ECHO, "summarise this", stdin="one\ntwo\n") == Outcome(
        0, "summarise this\n\none\ntwo\n", ""
    )


def test_a_file_that_a_shell_reads_line_by_line_is_left_to_the_shell(tmp_path: Path):
    questions = tmp_path / "questions.txt"
    questions.write_text("one\ntwo\nthree\n")
    command = shlex.join([sys.executable, str(MAIN), "-q", *ECHO])
    loop = f'while read q; do {command} "$q"; done < {shlex.quote(str(questions))}'

    done = subprocess.run(["sh", "-c", loop], capture_output=True, text=True, timeout=PATIENCE, check=True)

    assert done.stdout == "one\ntwo\nthree\n"


def test_a_loop_over_a_pipe_is_told_who_read_its_lines():
    command = shlex.join([sys.executable, str(MAIN), *ECHO])
    relay = shlex.join([sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"])
    scripts = {
        f'printf "one\ntwo\nthree\n" | while read q; do {command} "$q"; done': True,
        f'printf "one\ntwo\nthree\n" | while read q; do {command} "$q" </dev/null; done': False,
        f'printf "two\nthree\n" | {command} one': False,
        f'printf "two\nthree\n" | {relay} {command} one': False,  # make, sudo and the like
    }
    for script, told in scripts.items():
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
        said = "hint: read beside the question: 2 lines of standard input; in a loop over a pipe, add </dev/null\n"

        assert done.stdout.split() == ["one", "two", "three"]
        assert (said in done.stderr) is told


def test_without_arguments_the_question_is_read_from_the_pipe(own_home: Path):
    (own_home / ".synapticllamas.json").write_text('{"pipeline": "answer", "backend": "scripted"}')

    assert run_process(stdin="what now?\n").out == "what now?\n"


def test_a_failed_run_exits_1_and_says_why():
    with ollama(respond(500, b'{"error": "out of luck"}')) as server:
        outcome = run_process("-p", "answer", *node(server), "hello")

    assert (outcome.code, outcome.out) == (1, "")
    assert "error: " in outcome.err
    assert "out of luck" in outcome.err
    assert "Traceback" not in outcome.err


def test_wrong_usage_exits_2():
    outcome = run_process("--plann", "hello")

    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.splitlines()[0] == "error: unknown option --plann; did you mean --plan?"


def test_nothing_that_can_answer_exits_3_and_json_says_so():
    plain = run_process("--set", f'nodes=["{NOTHING_THERE}"]', "hello")
    document = run_process("--json", "--set", f'nodes=["{NOTHING_THERE}"]', "hello")

    assert (plain.code, plain.out, document.code) == (3, "", 3)
    assert "nothing answers" in plain.err
    assert plain.err.count("hint:") == 1
    parsed = json.loads(document.out)
    assert (parsed["status"], parsed["run_id"], parsed["steps"]) == ("failed", None, [])
    assert parsed["error"]["type"] == "BackendUnavailable"


def test_a_node_that_repeats_its_credentials_in_an_error_gets_them_shown_nowhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DESK_TOKEN", "sk-very-secret-1234")

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        said = {"error": f"cannot take {request.headers}"}
        await respond(500, json.dumps(said).encode())(reader, writer, request)

    with ollama(repeat) as server:
        desk = {"url": server.url, "name": "desk", "token_env": "DESK_TOKEN"}
        asked = ("--set", f"nodes={json.dumps([desk])}", "--set", "retries=0", "-p", "answer", "-v", "hello")
        plain, document = run_here(*asked), run_here("--json", *asked)

    shown = run_here("runs", "show", json.loads(document.out)["run_id"])
    for outcome in (plain, document, shown):
        said = outcome.out + outcome.err
        assert "Bearer [secret]" in said
        assert "secret-1234" not in said
    assert (plain.code, document.code, shown.code) == (1, 1, 0)


TWO_STEPS = """
version: 1
name: two
inputs: {query: {type: string, required: true}}
steps:
  find: {agent: editor, prompt: "{{ inputs.query }}"}
  write: {agent: editor, prompt: "{{ steps.find }}"}
result: "{{ steps.write }}"
"""


HIDING = "red \x9b31m, \u202edrow\u202c, \U000e0041, one\u200btwo, 👩\u200d💻."


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_what_a_model_hides_is_shown_on_a_terminal_and_left_alone_in_a_pipe(flags: tuple[str, ...], own_home: Path):
    asked = ("-q", "-p", "answer", *flags)
    with ollama(ollama_reply([HIDING])) as server:
        piped = run_here(*asked, *node(server), "hello").out
        with on_terminal(own_home, *asked, *node(server), "hello") as terminal:
            assert terminal.wait_for_end() == 0
    seen = terminal.raw.decode()
    assert HIDING in piped
    assert not {"\x9b", "\u202e", "\u202c", "\u200b", "\U000e0041"} & set(seen)
    c1, tag = (r"\u009b31m", r"\udb40\udc41") if flags else (r"\x9b31m", r"\U000e0041")
    assert all(part in seen for part in (c1, tag, r"\u202edrow\u202c", r"one\u200btwo", "👩\u200d💻"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_and_keeps_what_was_produced(number: signal.Signals, code: int, tmp_path: Path):
    (tmp_path / "two.yaml").write_text(TWO_STEPS)
    with ollama([ollama_reply(["First ", "finding."]), stream([], then=hang)]) as server:
        process = subprocess.Popen(
            [sys.executable, MAIN, "-p", str(tmp_path / "two.yaml"), *node(server), "hello"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while "write: started" not in (line := process.stderr.readline()):
            assert line, "it ended early"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        wait_until(lambda: server.open_connections == 0, "the connection to be closed")

    assert process.returncode == code
    assert (out, "output of find:\nFirst finding.\n" in err) == ("", True)
    assert "interrupted after" in err.splitlines()[-2]
    assert "finished: find; cut off: write" in err.splitlines()[-2]
    assert "Traceback" not in err


def test_an_interrupted_run_is_one_json_document():
    with ollama(ollama_reply([], done=False, then=hang)) as server:
        process = subprocess.Popen(
            [sys.executable, MAIN, "-q", "--json", "-p", "answer", *node(server), "hello"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: any(request.path == "/api/chat" for request in server.requests), "the call")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert json.loads(out)["status"] == "cancelled"


def test_an_interrupt_before_the_run_is_one_json_document_too():
    """The node accepts the connection and never answers what its models are."""
    with ollama(hang, tags=stream([], then=hang)) as server:
        process = subprocess.Popen(
            [sys.executable, MAIN, "--json", *node(server), "hello"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: server.requests, "the probe")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert (json.loads(out)["status"], json.loads(out)["run_id"]) == ("cancelled", None)
    assert "interrupted before anything was finished" in err


def test_a_reader_that_leaves_early_is_no_error():
    """The answer is longer than a pipe holds, and ``head`` takes one character of it."""
    synaptic = f"'{sys.executable}' '{MAIN}' -q {' '.join(ECHO)}"
    command = f"set -o pipefail; head -c 300000 /dev/zero | tr '\\0' y | {synaptic} | head -c 1"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "y", "")


def test_a_full_disk_is_an_error():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, MAIN, "-q", *ECHO, "hello"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: the answer could not be written: No space left on device"
    assert "Traceback" not in done.stderr


def test_an_interrupt_in_the_middle_of_an_import_ends_without_a_traceback():
    source = """\
import runpy, sys
class Pressed:
    def find_spec(name, *_):
        if name == "synaptic.ui.streams":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed)
runpy.run_module("synaptic", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_second_interrupt_leaves_at_once():
    code = "import signal; from synaptic.ui.one_shot import leave_at_once; leave_at_once(signal.SIGINT)"

    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False, stderr=subprocess.DEVNULL)

    assert done.returncode == 130


def test_the_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", MAIN, "--help"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {
        "pydantic",
        "rich",
        "httpx",
        "yaml",
        "asyncio",
        "jinja2",
        "prompt_toolkit",
        "importlib.metadata",
    }


def test_without_our_libraries_it_says_what_to_do(tmp_path: Path):
    """A copy of main.py with no environment beside it, run by an interpreter that has none of the libraries."""
    copy = tmp_path / "main.py"
    copy.write_text(Path(MAIN).read_text())

    done = subprocess.run(
        [sys.executable, "-I", "-S", copy], capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert done.returncode == 2
    assert "hint: run `make ask`" in done.stderr


def test_a_plain_interpreter_goes_on_with_the_environment_beside_main(tmp_path: Path):
    """As on the machine of somebody who has run `make ask` and then types `python main.py`."""
    copy, own = tmp_path / "main.py", tmp_path / ".venv" / "bin"
    copy.write_text(Path(MAIN).read_text())
    own.mkdir(parents=True)
    (own / "python").write_text('#!/bin/sh\nshift; echo "own environment: $*"\n')
    (own / "python").chmod(0o755)

    base = Path(sys.base_prefix, "bin", "python3")
    done = subprocess.run([base, copy, "a", "b"], capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert done.stdout == "own environment: a b\n"


# -- a question, on a terminal -----------------------------------------------------------------------------------


@contextmanager
def on_terminal(home: Path, *arguments: str, columns: int = 100) -> Iterator[Terminal]:
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    env = environment(home, **coverage, OLLAMA_HOST="127.0.0.1:9")
    with open_terminal([MAIN, *arguments], ROOT, env, columns=columns) as terminal:
        yield terminal


def test_on_a_terminal_the_tree_stays_once_above_the_answer(own_home: Path):
    with (
        ollama(ollama_reply(["The ", "answer", "."], delay=0.02)) as server,
        on_terminal(own_home, "-p", "answer", *node(server), "hello") as terminal,
    ):
        assert terminal.wait_for_end() == 0
        lines = [line for line in terminal.text.splitlines() if line]

    assert lines[0].startswith("▸ answer  editor  ollama/tiny:latest")
    assert lines[0].endswith("answers below")
    assert lines[1] == "The answer."
    assert lines[2].startswith("answer: ")
    assert len(lines) == 3
    assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")


def test_ctrl_c_on_a_terminal_keeps_the_partial_answer(own_home: Path):
    with (
        ollama(ollama_reply(["Half ", "an ", "answer "], done=False, then=hang)) as server,
        on_terminal(own_home, "-p", "answer", *node(server), "hello") as terminal,
    ):
        terminal.wait("Half an")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
        screen = terminal.text

    assert screen.count("Half an") == 1
    assert "finished: nothing; cut off: answer" in screen
    assert "Traceback" not in screen


def test_ctrl_c_while_a_step_waits_leaves_a_clean_tree(own_home: Path):
    with ollama(stream([], then=hang)) as server, on_terminal(own_home, *node(server), "hello") as terminal:
        terminal.wait("research", "waiting")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
        lines = terminal.text.splitlines()

    assert [line.split()[1] for line in lines[:5]] == ["plan", "research", "critique", "refine", "write"]
    # The map is ready for the first question that the planner writes, so it has begun, too.
    assert all(line.endswith("interrupted") for line in lines[:2])
    assert all(line.endswith("not reached") for line in lines[2:5])
    assert sum("plan" in line for line in lines) == 2  # the tree, and the line that says what was cut off


@pytest.mark.skipif(shutil.which("bash") is None, reason="a shell with job control")
def test_ctrl_z_and_fg_leave_the_shell_its_lines_and_show_the_answer_once(own_home: Path):
    go_on = threading.Event()

    async def the_rest(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not go_on.is_set():
            await asyncio.sleep(0.02)
        for line in ollama_lines(["of the answer", " and the second one."]):
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        await finish(_, writer)

    env = environment(own_home, OLLAMA_HOST="127.0.0.1:9", PS1="$ ")
    shell = "import os; os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])"
    with (
        ollama(ollama_reply(["The first half "], done=False, then=the_rest)) as server,
        open_terminal(["-c", shell], ROOT, env) as terminal,
    ):
        terminal.wait("$")
        terminal.type(shlex.join([sys.executable, MAIN, "-p", "answer", *node(server), "hello"]), ENTER)
        terminal.wait("The first half")
        terminal.type(CTRL_Z)
        terminal.wait("Stopped", lambda terminal: terminal.line == "$")
        assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")
        assert "The first half" not in terminal.text
        terminal.type("echo be''tween", ENTER)
        terminal.wait("\nbetween\n", lambda terminal: terminal.line == "$")
        terminal.type("fg", ENTER)
        terminal.wait("The first half")
        go_on.set()
        terminal.wait("s · 1 call", lambda terminal: terminal.line == "$")
        lines = terminal.text.splitlines()

    assert sum("The first half" in line for line in lines) == 1
    assert lines.index("between") < lines.index("The first half of the answer and the second one.")
    assert "answer: started" not in terminal.text


def test_no_arguments_on_a_terminal_open_the_prompt(own_home: Path):
    with on_terminal(own_home) as terminal:
        terminal.wait_for_prompt()
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0


@pytest.mark.real_model
def test_ctrl_c_ends_the_engine(own_home: Path):
    """The whole way: the embedded engine is a child, and gone with the program."""
    env = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    arguments = [MAIN, "-p", "answer", "--set", "backend=embedded", "Write a very long story"]
    with open_terminal(arguments, ROOT, environment(own_home, **env)) as terminal:
        terminal.wait("answers below")
        children = psutil.Process(terminal.program.pid).children(recursive=True)
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
        _, alive = psutil.wait_procs(children, timeout=30)

    assert children
    assert not alive


def test_garbage_is_collected_as_usual_once_the_program_has_started():
    usual, callbacks = gc.get_threshold(), list(gc.callbacks)
    cli._collect_no_garbage_yet()
    assert gc.get_threshold()[0] == cli.MADE_BY_A_START
    made = [[] for _ in range(cli.MADE_BY_A_START + usual[0])]
    assert made
    assert (gc.get_threshold(), gc.callbacks) == (usual, callbacks)
