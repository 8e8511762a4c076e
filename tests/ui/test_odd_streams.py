"""Every command under every odd standard stream: a table that is made from click's own list of commands."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from urllib.request import urlopen

import click
import pytest
from cli_support import ECHO, MAIN, NOTHING_THERE, PATIENCE, SCRIPTED, ollama, wait_until
from fault_server import json_reply, ollama_reply
from odd_streams import Ended, Row, Streams
from repl_terminal import ROOT, environment

from synaptic.processes import free_port
from synaptic.ui.root import build_root

MARK = "grün ✓ 𝄞"
"""Latin-1 has the first of it, ASCII none, and only the best fonts the last."""

DOCUMENTS = ("--json", "--source", "schema", "svg", "mermaid", "dot", "json", "poet")
"""Words whose command prints a document: it is UTF-8 whatever the locale."""

PIPELINE = f"""version: 1
name: mine
description: {MARK}
inputs: {{query: {{description: {MARK}}}}}
steps:
  write: {{agent: editor, prompt: "{MARK} {{{{ inputs.query }}}}"}}
result: "{{{{ steps.write }}}}"
tests:
  right: {{inputs: {{query: q}}, replies: {{write: {MARK}}}, expect: {{result: {MARK}}}}}
  wrong: {{inputs: {{query: q}}, replies: {{write: {MARK}}}, expect: {{result: other}}}}
"""

ODD = {
    "stdin closed": Streams(stdin="closed"),
    "stdin for writing only": Streams(stdin="write-only"),
    "stdin broken": Streams(stdin="broken"),
    "stdin of Latin-1": Streams(stdin="latin-1"),
    "stdout closed": Streams(stdout="closed"),
    "stdout full": Streams(stdout="full"),
    "stdout whose reader left": Streams(stdout="left"),
    "stderr closed": Streams(stderr="closed"),
    "stderr full": Streams(stderr="full"),
    "stderr whose reader left": Streams(stderr="left"),
    "all closed": Streams("closed", "closed", "closed"),
    "all full": Streams("nothing", "full", "full"),
    "ASCII": Streams(encoding="ascii"),
    "Latin-1": Streams(encoding="latin-1"),
}
LOSING = {"closed", "full"}


def commands(url: str) -> dict[str, list[tuple[str, ...]]]:
    """Each command -> ways to call it: with what it needs, as a document, and such that it fails."""
    at = ("--set", f"nodes={url}", "--set", "retries=0")
    nowhere = ("--set", f"nodes={NOTHING_THERE}", "--set", "retries=0")
    run = ("-p", "answer", *SCRIPTED, MARK)
    return {
        "run": [
            (*run,),
            (*run, "--json"),
            (*run, "--plan"),
            (*run, "--plan", "--json"),
            (*run, "-v"),
            ("-p", "mine.yaml", *SCRIPTED, "-q", "hello"),
            ("-p", "answer", *at, "hello"),
            ("-p", "answer", *nowhere, "hello"),
            ("-p", "answer", *nowhere, "--json", "hello"),
        ],
        "chat": [SCRIPTED],
        "runs resume": [SCRIPTED, ("NOSUCH", *SCRIPTED)],
        "runs fork": [("NOSUCH", "--at", "end", *SCRIPTED)],
        "runs rerun": [("NOSUCH", *SCRIPTED), ("NOSUCH", "--json", *SCRIPTED)],
        "runs answer": [("NOSUCH",), ("NOSUCH", "city", MARK)],
        "runs replay": [("NOSUCH",), ("NOSUCH", "--json")],
        "runs diff": [("NOSUCH", "NOSUCH"), ("NOSUCH", "NOSUCH", "--json")],
        "sessions list": [(), ("--json",)],
        "sessions show": [("nothing",)],
        "sessions export": [("nothing",), ("nothing", "--json")],
        "sessions remove": [("nothing",)],
        "batch": [("answer", "in.jsonl", "-o", "out.jsonl", *SCRIPTED), ("answer", "mine.yaml", "-o", "out.jsonl")],
        "pipelines list": [(), ("--json",)],
        "pipelines show": [("mine.yaml", way) for way in ("--plan", "--source", "--json")],
        "pipelines graph": [("mine.yaml", "--format", way) for way in ("text", "mermaid", "dot", "svg", "json")],
        "pipelines schema": [()],
        "pipelines test": [("mine.yaml",), ("mine.yaml", "--json"), ("--only", "right"), ("research",)],
        "pipelines validate": [("mine.yaml", "research"), ("broken.yaml",), ("--models", "mine.yaml", *at)],
        "runs list": [("--pipeline", "nosuch"), ("--pipeline", "nosuch", "--json")],
        "runs show": [("NOSUCH",)],
        "runs grep": [("nowhere to be found",), ("nowhere to be found", "--json")],
        "runs export": [("NOSUCH",)],
        "runs prune": [("--keep", "50000"), ()],
        "runs pin": [("NOSUCH",)],
        "agents list": [(), ("--json",)],
        "agents show": [("poet",), ("poet", "--json"), ("nobody",)],
        "models list": [at, (*at, "--json"), nowhere],
        "models show": [("tiny", *at), ("tiny", *at, "--json"), ("tiny", *nowhere)],
        "models pull": [("tiny", *at), ("tiny", *nowhere)],
        "models verify": [(), ("--json",), ("nothing.gguf",)],
        "nodes add": [(url,), (NOTHING_THERE, "--no-check")],
        "nodes list": [at, (*at, "--json"), (*at, "--check")],
        "nodes check": [at, (*at, "--json"), nowhere],
        "nodes remove": [("http://10.0.0.9",), ("desk",)],
        "nodes discover": [("127.0.0.1/32", "--port", url.rpartition(":")[2], "--yes"), ("127.0.0.1/32",)],
        "engine install": [("--source", "nothing.tar.gz")],
        "engine status": [(), ("--json",)],
        "engine verify": [(), ("--json",)],
        "engine use": [("--none",), ("--none", "--json"), ("nowhere",)],
        "workers list": [("--set", "rpc_backends=127.0.0.1:9"), ("--set", "rpc_backends=127.0.0.1:9", "--json")],
        "workers check": [("127.0.0.1:9",), ("127.0.0.1:9", "--json")],
        "workers start": [("--host", "nowhere"), ()],
        "workers stop": [()],
        "machines add": [("no address at all",), ("nobody@127.0.0.1:9",)],
        "machines list": [(), ("--json",)],
        "machines check": [(), ("nothing",)],
        "machines remove": [("nothing",)],
        "machines upgrade": [(), ("nothing",)],
        "machines logs": [(), ("nothing",)],
        "machines install-service": [("--print", "--set", "model=m"), ("nothing",)],
        "distributed plan": [("nothing.gguf",), ("nothing.gguf", "--json")],
        "distributed start": [("nothing.gguf", "--foreground")],
        "distributed stop": [("--all",)],
        "distributed status": [(), ("--json",)],
        "distributed logs": [("nothing",)],
        "serve": [("--host", "nowhere")],
        "top": [at, (*at, "--json"), ("--url", NOTHING_THERE)],
        "keys add": [("phone",), ("desk", "--json")],
        "keys list": [(), ("--json",)],
        "keys revoke": [("nobody",)],
        "keys usage": [(), ("--json",)],
        "config show": [(), ("--json",)],
        "config path": [()],
        "config set": [("model", MARK), ("modell", MARK)],
        "config unset": [("model",)],
        "config validate": [(), ("--set", "modell=x")],
        "config migrate": [()],
        "trust": [(), ("--yes",), ("--list",), ("--remove",), ("nowhere",)],
        "completion": [("zsh",), ("none",)],
        "doctor": [nowhere, (*nowhere, "--json"), (*nowhere, "--deep")],
    }


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands that are no groups."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*path, name))


def groups(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        yield path
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from groups(command.get_command(context, name), (*path, name))


def rows(url: str) -> list[Row]:
    every = [Row((*name.split(), *words)) for name, ways in commands(url).items() for words in ways]
    every += [Row((*path, "--help")) for path in groups(build_root())]
    every += [Row(("--version",)), Row(("--bogus",))]
    every.append(Row((), environ=(("SYNAPTIC_BACKEND", "scripted"),)))  # else it fetches a model, and asks it
    piped = {("chat", *SCRIPTED): f"/help\n{MARK}\n/config path\n/nonsense\n", (): f"{MARK}\n"}
    return [replace(row, piped=piped.get(row.words, "")) for row in every]


def test_the_table_names_every_command():
    assert sorted(commands("http://127.0.0.1:9")) == sorted(leaves(build_root()))


class Matrix:
    """How every row ends under a kind of odd streams, or under ordinary ones (``""``); run when first asked for."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self._url = url
        self._process = process
        self._known: dict[str, dict[tuple[str, ...], tuple[Row, Ended]]] = {}

    def __getitem__(self, kind: str) -> dict[tuple[str, ...], tuple[Row, Ended]]:
        if kind not in self._known:
            streams = ODD.get(kind, Streams())
            asked = [
                replace(row, streams=streams)
                for row in rows(self._url)
                if reads(row) or streams.stdin in {"nothing", "closed"}
            ]
            assert self._process.stdin is not None and self._process.stdout is not None
            print(json.dumps([asdict(row) for row in asked]), file=self._process.stdin, flush=True)
            ended = [Ended(**outcome) for outcome in json.loads(self._process.stdout.readline())]
            self._known[kind] = {row.words: (row, how) for row, how in zip(asked, ended, strict=True)}
        return self._known[kind]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    home, place = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("matrix")
    (home / ".synapticllamas.json").write_text(json.dumps({"agent_models": {"grün": MARK}}))
    (home / "synapticllamas.json").write_text(json.dumps({"pipeline": "answer", "nodes": ["http://10.0.0.9"]}))
    (home / "mine.yaml").write_text(PIPELINE)
    (home / "in.jsonl").write_text('"hello"\n')
    (home / "broken.yaml").write_text(f"version: 1\n{MARK}: 1\n")
    (home / "agents").mkdir()
    for name in ("editor", "poet"):  # the first takes the place of a shipped one, which needs trust
        (home / "agents" / f"{name}.md").write_text(f"---\ndescription: {MARK}\n---\nAnswer {MARK}.\n")
    settings = environment(home, OLLAMA_HOST=NOTHING_THERE, PYTHONPATH=str(ROOT))
    with (
        ollama(ollama_reply(["Hello"]), pull=json_reply({"status": "success"})) as server,
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "support" / "odd_streams.py"],
            cwd=place,
            env={
                name: value for name, value in settings.items() if name != "COVERAGE_PROCESS_CONFIG"
            },  # thrice as slow
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        yield Matrix(server.url, process)


def complaints(row: Row, ended: Ended, usual: Ended) -> Iterator[str]:
    """What is wrong with how a command ended under odd streams, given how it ends under ordinary ones."""
    streams = row.streams
    lost = bool(usual.out) and streams.stdout in LOSING
    expected = usual.code or int(lost)
    if reads(row) and streams.stdin in {"latin-1", "broken"}:
        expected = 2
        if streams.stderr == "file" and "error: standard input " not in ended.err:
            yield "it does not say what is wrong with standard input"
    elif row.words[:1] == ("chat",) and (streams.stdin != "nothing" or streams.stdout != "file"):
        expected = int(lost and streams.stdin == "nothing")  # it ends where nothing can be read or written any more
    elif row.words == () and streams.stdin != "nothing":
        expected = 2  # there is no question
    elif streams.stdout == "file" and bool(ended.out) != bool(usual.out):
        yield f"standard output is {ended.out!r}, not {usual.out!r}"
    if ended.code != expected:
        yield f"exit code {ended.code}, not {expected}"
    if lost and streams.stderr == "file" and expected and "could not be written: " not in ended.err:
        yield "it does not say that the answer could not be written"
    for word in ("Traceback", "this is a bug", "Exception ignored", "Errno"):
        if word in ended.err + ended.out:
            yield f"says {word}"


def reads(row: Row) -> bool:
    """Whether a command reads what is piped in."""
    return row.words == () or row.words[0] in {"run", "chat"}


@pytest.mark.parametrize("kind", ["", *ODD])
def test_a_command_ends_as_ever_or_says_that_its_answer_could_not_be_written(matrix, kind: str):
    wrong = [
        f"{' '.join(row.words)}: {complaint}\n{ended.err}"
        for row, ended in matrix[kind].values()
        for complaint in complaints(row, ended, matrix[""][row.words][1])
    ]

    assert "\n".join(wrong) == ""


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        ("{} config path >&-", 1, "error: the answer could not be written: standard output is closed\n"),
        ("{} config path >/dev/full", 1, "error: the answer could not be written: No space left on device\n"),
        ("{} -q -p answer --set backend=scripted hello <&- >/dev/null", 0, ""),
        ("{} -p answer --set backend=scripted hello <&- 2>&- >/dev/null", 0, ""),
        ("{} agents show editor <&- >&- 2>&-", 1, ""),
        ("LC_ALL=C {} -q -p answer --set backend=scripted 'grün ✓' | grep -qx 'grün ✓'", 0, ""),
        ("PYTHONIOENCODING=ascii {} pipelines graph research --format svg | iconv -f utf-8 >/dev/null", 0, ""),
    ],
)
def test_a_shell_may_redirect_as_it_likes(redirected: str, code: int, said: str):
    synaptic = f"'{sys.executable}' '{MAIN}'"

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {redirected.format(synaptic)}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_streams_that_another_program_made_non_blocking_are_waited_for():
    """A pipe holds 64 KiB: the program has more to read than is there, and more to write than fits."""
    there, far_end = os.pipe()
    os.set_blocking(there, False)
    near_end, here = os.pipe()
    os.set_blocking(here, False)
    process = subprocess.Popen([sys.executable, MAIN, "-q", *ECHO], stdin=there, stdout=here, stderr=subprocess.PIPE)
    os.close(there)
    os.close(here)
    text = b"grown " * 50_000
    with os.fdopen(far_end, "wb") as writer:
        writer.write(text)
    with os.fdopen(near_end, "rb") as reader:
        assert reader.read().strip() == text.strip()
    assert process.communicate(timeout=PATIENCE) == (None, b"")
    assert process.returncode == 0


def test_a_server_without_streams_serves():
    port = free_port()
    command = f"exec '{sys.executable}' '{MAIN}' serve --port {port} <&- >&- 2>&-"
    server = subprocess.Popen(["bash", "-c", command])
    try:
        wait_until(lambda: answers(port), "an answer")
        assert server.poll() is None
    finally:
        server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) == 0


def answers(port: int) -> bool:
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api/version", timeout=PATIENCE) as reply:
        return "version" in json.load(reply)
    return False


@pytest.mark.parametrize("kind", ["", "ASCII", "Latin-1", "stderr closed"])
def test_a_document_is_utf8_whatever_the_locale(matrix, kind: str):
    documents = [(row, ended) for row, ended in matrix[kind].values() if set(row.words) & set(DOCUMENTS) and ended.out]

    assert len(documents) > 20
    marked = 0
    for row, ended in documents:
        text = ended.out.encode("latin-1").decode("utf-8")  # else this fails
        assert ("�" in text) is False, row.words
        marked += MARK in text
        if "--json" in row.words:
            json.loads(text)
    assert marked >= 8
