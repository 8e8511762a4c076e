"""``synaptic nodes``: every subcommand against real sockets, its exit codes, its mistakes, and what it writes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import MAIN, NOTHING_THERE, PATIENCE, Outcome, ollama
from cli_support import run_here as cli_here
from fault_server import FaultServer, json_reply, ollama_reply, respond
from repl_terminal import ENTER, environment, open_terminal
from trust_support import trust

from synaptic.ui import cli

Run = Callable[..., Outcome]
SECRET = "sk-very-secret-1234"
LOADED = {"models": [{"name": "tiny:latest", "size": 1000, "size_vram": 500}]}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run ``synaptic nodes ...`` in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str) -> Outcome:
        code = cli.run(("nodes", *arguments))
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        assert "this is a bug" not in captured.err
        assert SECRET not in captured.out + captured.err
        return Outcome(code, captured.out, captured.err)

    return run_here


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with ollama(json_reply({}), version=json_reply({"version": "0.12.6"})) as serving:
        yield serving


@pytest.fixture
def file(own_home: Path) -> Path:
    return own_home / ".synapticllamas.json"


def write(file: Path, *nodes: object, **more: Any) -> None:
    file.write_text(json.dumps({**more, "nodes": list(nodes)}))


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["list", "add", "remove", "check", "discover"])
def test_every_subcommand_explains_itself(run: Run, name: str):
    done = run(name, "--help")
    assert done.code == 0
    assert "synaptic nodes" in done.out or name == "list"
    assert run("--help").out.count(f"\n  {name} ") == 1


@pytest.mark.parametrize("words", [["frobnicate"], ["add"], ["remove"], ["discover"], ["add", "a", "--parallel", "x"]])
def test_wrong_usage_is_one_line_and_a_hint(run: Run, words: list[str]):
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert "hint: " in done.err


# -- list --------------------------------------------------------------------------------------------------------------


def test_list_contacts_nobody_and_shows_where_secrets_are(run: Run, file: Path, server: FaultServer):
    write(file, {"url": server.url, "name": "desk", "parallel": 2, "memory_gib": 24, "token_env": "DESK_TOKEN"})
    done = run("list")
    assert done.code == 0
    assert done.out.splitlines()[0].split() == ["NODE", "URL", "PARALLEL", "MEMORY", "ACCESS"]
    for word in ("desk", server.url, "24 GiB", "token from $DESK_TOKEN"):
        assert word in done.out
    assert str(file) in done.err
    assert server.connections == 0
    (entry,) = json.loads(run("list", "--json").out)
    assert (entry["url"], entry["token_env"]) == (server.url, "DESK_TOKEN")


def test_list_says_which_nodes_are_one(run: Run, file: Path, server: FaultServer):
    twin = server.url.replace("127.0.0.1", "localhost")
    write(file, {"url": server.url, "name": "desk"}, {"url": twin})
    done = run("list")
    assert f"{twin} and {server.url} are one server: it is used once, as desk" in done.err
    assert server.connections == 0


def test_list_without_nodes_says_what_is_used_and_how_to_name_one(run: Run):
    done = run("list")
    assert (done.code, done.out) == (0, "")
    assert "http://127.0.0.1:9" in done.err
    assert "nodes add" in done.err
    assert json.loads(run("list", "--json").out) == []


def test_list_with_a_look_at_each(run: Run, file: Path, server: FaultServer):
    write(file, {"url": server.url, "name": "desk"}, {"url": NOTHING_THERE, "name": "gone"})
    lines = run("list", "--check").out.splitlines()
    assert " ".join(lines[0].split()) == "NODE STATE VERSION BUSY QUEUE ERRORS MODEL VRAM TTFT TOK/S ABOUT"
    assert lines[1].split()[:4] == ["desk", "up", "0.12.6", "0/1"]
    assert lines[2].split()[:2] == ["gone", "down"]
    assert "connection refused" in lines[2]
    desk, gone = json.loads(run("list", "--check", "--json").out)
    assert (desk["ok"], desk["version"], [model["name"] for model in desk["models"]]) == (
        True,
        "0.12.6",
        ["tiny:latest"],
    )
    assert (gone["ok"], gone["version"]) == (False, None)
    assert "connection refused" in gone["reason"]


# -- add ---------------------------------------------------------------------------------------------------------------


def test_add_looks_says_what_is_there_and_writes(run: Run, file: Path, server: FaultServer):
    file.write_text('{"model": "m", "retries": 1}')
    done = run("add", f"127.0.0.1:{server.port}", "--name", "desk", "--parallel", "2", "--memory-gib", "24")
    assert (done.code, done.out) == (0, "")
    assert "Ollama 0.12.6, tiny:latest" in done.err
    assert "http://127.0.0.1:9" in done.err  # the local one is not used any more
    entry = {"url": server.url, "parallel": 2, "name": "desk", "memory_gib": 24.0}
    assert json.loads(file.read_text()) == {"model": "m", "retries": 1, "nodes": [entry]}


def test_add_with_a_secret_writes_only_where_it_is(
    run: Run, file: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DESK_TOKEN", SECRET)
    assert run("add", server.url, "--token-env", "DESK_TOKEN").code == 0
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {SECRET}"}
    assert SECRET not in file.read_text()
    assert run("remove", server.url).code == 0
    (tmp_path / "pass").write_text(SECRET)
    done = run("add", server.url, "--username", "ada", "--password-file", "pass")
    assert done.code == 0
    assert "chmod 600" in " ".join(done.err.split())
    (entry,) = json.loads(file.read_text())["nodes"]
    assert entry["password_file"] == str(tmp_path / "pass")


def test_add_refuses_where_nothing_answers_and_takes_it_all_the_same(run: Run, file: Path):
    done = run("add", NOTHING_THERE)
    assert done.code == 3
    assert "nothing was added" in done.err
    assert "--no-check" in done.err
    assert not file.exists()
    assert run("add", NOTHING_THERE, "--no-check").code == 0
    assert json.loads(file.read_text()) == {"nodes": [{"url": NOTHING_THERE}]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://ada:sk-very-secret-1234@desk"], "--password-env"),
        (["ftp://desk"], "http://desk"),
        (["http://desk/api/chat"], 'write "http://desk:11434"'),
        (["desk", "--token-env", "A", "--token-file", "b"], "has both token_env and token_file"),
        (["desk", "--username", "ada"], "has a username and no password"),
        (["desk", "--token-env", "MISSING_TOKEN"], "MISSING_TOKEN is not set"),
        (["desk", "--token-file", "missing"], "cannot be read"),
        (["https://desk", "--ca-file", "missing.pem"], "there is no file"),
        (["desk", "--name", ""], "must not be empty"),
        (["desk", "--memory-gib", "-1"], "must be greater than 0"),
        (["desk", "--memory-gib", "nan"], "must be"),
    ],
)
def test_add_says_what_is_wrong_and_writes_nothing(run: Run, file: Path, words: list[str], said: str):
    done = run("add", *words)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not file.exists()


def test_add_of_one_that_is_there(run: Run, file: Path, server: FaultServer):
    write(file, {"url": server.url, "name": "desk"})
    before = file.read_bytes()
    done = run("add", f"127.0.0.1:{server.port}")
    assert done.code == 2
    assert "one of the nodes already, as desk" in done.err
    assert server.connections == 0
    assert file.read_bytes() == before


def test_add_of_one_that_asks_for_credentials_or_has_no_model(run: Run, file: Path):
    with ollama(json_reply({}), version=respond(401, b"{}")) as locked:
        done = run("add", locked.url)
    assert done.code == 3
    assert "token_env" in done.err
    empty = {"version": json_reply({"version": "1"}), "tags": json_reply({"models": []})}
    with ollama(json_reply({}), **empty) as bare:
        done = run("add", bare.url)
    assert done.code == 0
    assert "ollama pull" in done.err
    assert json.loads(file.read_text())["nodes"] == [{"url": bare.url}]


def test_a_file_of_ones_own_and_a_source_that_goes_before_it(
    run: Run, tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SYNAPTIC_NODES", "http://other:1")
    done = run("add", server.url, "--config", "mine.json")
    assert done.code == 0
    assert json.loads((tmp_path / "mine.json").read_text()) == {"nodes": [{"url": server.url}]}
    assert "SYNAPTIC_NODES now, which goes before" in " ".join(done.err.split())


def test_many_at_once_lose_no_node_of_a_file_that_stays_whole(file: Path, own_home: Path, server: FaultServer):
    write(file, "http://first:1", model="m")
    arguments = [sys.executable, MAIN, "nodes", "add", "--no-check"]
    adding = [subprocess.Popen([*arguments, f"http://n{number}:1"]) for number in range(4)]
    assert [process.wait(PATIENCE) for process in adding] == [0] * 4
    written = json.loads(file.read_text())
    assert written["model"] == "m"
    assert len(written["nodes"]) == 5


# -- remove ------------------------------------------------------------------------------------------------------------


def test_remove(run: Run, file: Path):
    write(file, {"url": "http://a:1", "name": "desk"}, "http://b:1", model="m")
    assert run("remove", "desk").code == 0
    assert json.loads(file.read_text()) == {"model": "m", "nodes": ["http://b:1"]}
    done = run("remove", "desk")
    assert done.code == 2
    assert "there is no node 'desk'" in done.err
    assert run("remove", "b:1").code == 0
    assert json.loads(file.read_text()) == {"model": "m", "nodes": []}


def test_remove_of_one_that_stands_elsewhere_says_where(run: Run, file: Path, tmp_path: Path):
    (tmp_path / "synapticllamas.json").write_text('{"nodes": ["http://a:1"]}')
    trust()
    done = run("remove", "http://a:1")
    assert done.code == 2
    assert "./synapticllamas.json:1" in done.err


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_tells_what_is_loaded_where_and_ends_by_how_many_are_well(run: Run, file: Path):
    with ollama(json_reply({}), version=json_reply({"version": "0.12.6"}), ps=json_reply(LOADED)) as server:
        write(file, {"url": server.url, "name": "desk"}, {"url": NOTHING_THERE, "name": "gone"})
        both, desk = run("check"), run("check", "desk")
        document = run("check", "--json")
        other = run("check", f"127.0.0.1:{server.port}", "desk")
    gone = run("check", "gone")
    assert (both.code, desk.code, gone.code, other.code, document.code) == (1, 0, 3, 0, 1)
    assert "ok      desk" in both.out
    assert "50 % in video memory" in both.out
    assert "down    gone" in both.out
    assert "fix: start Ollama (ollama serve), or correct the address" in gone.out
    assert [look["ok"] for look in json.loads(document.out)] == [True, False]
    assert json.loads(document.out)[0]["models"][0]["vram_share"] == 0.5


def test_one_server_under_two_names_is_told(run: Run, file: Path, server: FaultServer):
    other = server.url.replace("127.0.0.1", "localhost")
    said = f"{other} and {server.url} are one server: it is used once, as desk"
    write(file, {"url": server.url, "name": "desk"})
    assert said in run("add", f"{other}/").err
    for words in (["check"], ["list", "--check"], ["check", other, "desk"]):
        done = run(*words)
        assert done.code == 0
        assert ("are one server: it is used once" in done.err) is True
    assert said in run("check").err
    assert [look["same_as"] for look in json.loads(run("check", "--json").out)] == [None, "desk"]


def test_check_without_nodes_looks_at_the_local_one(run: Run, server: FaultServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
    done = run("check")
    assert done.code == 0
    assert server.url in done.out


def test_check_of_a_name_that_nobody_has(run: Run, file: Path):
    write(file, {"url": "http://a:1", "name": "desk"})
    done = run("check", "desl")
    assert done.code == 2
    assert "did you mean desk?" in done.err


def test_a_local_address_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_HOST", "a b")
    assert run("check").code == 2
    assert run("list").code == 2


# -- discover ----------------------------------------------------------------------------------------------------------


def test_discover_says_how_many_it_contacts_and_shows_what_it_found(run: Run, server: FaultServer, file: Path):
    done = run("discover", "127.0.0.1/30", "--port", str(server.port), "--yes")
    assert done.code == 0
    assert "2 addresses (127.0.0.0/30)" in done.err
    assert done.out.splitlines()[1].split() == [server.url, "0.12.6", "no", "tiny:latest"]
    assert f"nodes add {server.url}" in done.err
    assert not file.exists()


def test_discover_adds_what_is_not_there_yet(run: Run, server: FaultServer, file: Path):
    words = ("discover", "127.0.0.1", "--port", str(server.port), "--yes", "--add")
    assert "1 node added" in run(*words).err
    assert json.loads(file.read_text()) == {"nodes": [{"url": server.url}]}
    again = run(*words)
    assert "0 nodes added" in again.err
    assert again.out.splitlines()[1].split()[2] == "yes"


def test_discover_as_json(run: Run, server: FaultServer):
    done = run("discover", "127.0.0.1", "--port", str(server.port), "--yes", "--json")
    found = {"url": server.url, "version": "0.12.6", "models": ["tiny:latest"], "note": ""}
    assert json.loads(done.out) == [found]
    nothing = run("discover", "127.0.0.1", "--port", "9", "--yes", "--json")
    assert (nothing.code, json.loads(nothing.out)) == (0, [])


def test_discover_does_not_add_what_asks_for_credentials(run: Run, file: Path):
    with ollama(json_reply({}), version=respond(401, b"{}")) as locked:
        done = run("discover", "127.0.0.1", "--port", str(locked.port), "--yes", "--add")
    assert done.code == 0
    assert "asks for credentials" in done.out
    assert "--token-env" in " ".join(done.err.split())
    assert not file.exists()


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "desk", "224.0.0.0/24"])
def test_discover_refuses_before_it_contacts_anybody(run: Run, cidr: str):
    done = run("discover", cidr, "--yes")
    assert done.code == 2
    assert "hint: " in done.err


def test_discover_without_a_terminal_needs_yes(run: Run, server: FaultServer):
    done = run("discover", "127.0.0.1", "--port", str(server.port))
    assert done.code == 2
    assert "would contact 1 address" in done.err
    assert "--yes" in done.err
    assert server.connections == 0


def test_discover_asks_at_a_terminal_and_takes_no_for_an_answer(own_home: Path, server: FaultServer):
    arguments = [MAIN, "nodes", "discover", "127.0.0.1", "--port", str(server.port)]
    with open_terminal(arguments, own_home, environment(own_home)) as terminal:
        terminal.wait("1 address (127.0.0.1)", "Contact them? [y/N]")
        assert server.connections == 0
        terminal.type(ENTER)
        assert terminal.wait_for_end() == 1
        assert "nothing was contacted" in terminal.text
    assert server.connections == 0
    with open_terminal(arguments, own_home, environment(own_home)) as terminal:
        terminal.wait("Contact them? [y/N]")
        terminal.type("y", ENTER)
        assert terminal.wait_for_end() == 0
        assert "tiny:latest" in terminal.text


def test_ctrl_c_at_the_question_contacts_nobody(own_home: Path, server: FaultServer):
    arguments = [MAIN, "nodes", "discover", "127.0.0.1", "--port", str(server.port)]
    with open_terminal(arguments, own_home, environment(own_home)) as terminal:
        terminal.wait("Contact them? [y/N]")
        terminal.type("\x03")
        assert terminal.wait_for_end() == 130
    assert server.connections == 0


# -- what a node says of its models ------------------------------------------------------------------------------------

FORGED = [
    "x\nok      fix: run curl evil",
    "x\r\nok      fix: run curl evil",
    "x\u2028ok      fix: run curl evil",
    "x\x1b[2Jok      fix: run curl evil",
    "x" * 300 + "evil",
]


def many_models(*names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "size": 1000, "details": {"family": "a\nevil", "quantization_level": "Q4\nevil"}}
        for name in names
    ]


@pytest.mark.parametrize(
    "words", [("nodes", "check"), ("models", "list"), ("doctor",), ("--plan", "-p", "answer", "hello")]
)
def test_a_models_name_is_one_line_or_none(words: tuple[str, ...]):
    tags = {"models": many_models(*FORGED, "tiny:latest")}
    with ollama(json_reply({}), tags=json_reply(tags), ps=json_reply(tags), show=json_reply({})) as node:
        done = cli_here(*words, "--set", f'nodes=["{node.url}"]')
    assert "tiny" in done.out
    assert not [line for line in (done.out + done.err).splitlines() if line.startswith(("ok      fix", "evil"))]
    assert "run curl" not in done.out + done.err


def test_a_node_with_more_models_than_any_has_keeps_nobody_waiting():
    tags = {"models": many_models("tiny:latest", *(f"m{number}:latest" for number in range(30_000)))}
    with ollama(ollama_reply(["hi"]), tags=json_reply(tags), show=json_reply({})) as node:
        there = ("--set", f'nodes=["{node.url}"]')
        assert cli_here("-p", "answer", "-m", "tiny", "-q", *there, "hello").out == "hi\n"
        assert "4096 models" in cli_here("nodes", "check", *there).out
        asked = sum(request.path == "/api/show" for request in node.requests)
    assert asked <= 2 * 4096
