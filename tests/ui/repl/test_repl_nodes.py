"""``/nodes`` and ``/explain``: without a terminal, and on one."""

import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cli_support import NOTHING_THERE, wait_until
from fault_server import FaultServer, json_reply
from nodes_driver import NodesBackend, decision
from repl_talk import Talk, make_talk
from repl_terminal import CTRL_C, CTRL_D, ENTER, ROOT, Terminal, environment, open_terminal

from synaptic.errors import ExitCode
from synaptic.runtime.session import Session
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.repl import Repl, Sources
from synaptic.ui.repl.screen import Screen
from synaptic.ui.repl.sessions import SessionHolder

DRIVER = str(ROOT / "tests" / "support" / "nodes_driver.py")
PATHS = {
    "/api/version": json_reply({"version": "0.12.6"}),
    "/api/tags": json_reply({"models": [{"name": "tiny:latest", "size": 1000}]}),
    "/api/ps": json_reply({"models": []}),
}


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    """Give a program whose backend has no nodes."""
    made = make_talk()
    yield made
    await made.repl.aclose()


@pytest.fixture
async def pooled() -> AsyncIterator[Talk]:
    """Give a program whose backend shows two nodes."""
    backend = NodesBackend()
    out, err = io.StringIO(), io.StringIO()
    sources = Sources(None, ("pipeline=answer", "retries=0"), {}, {})
    repl = Repl(
        sources.load(),
        sources,
        screen=Screen(out, err, live=False),
        registry=REGISTRY,
        sessions=SessionHolder(lambda settings: Session(settings, backend=backend)),
    )
    yield Talk(repl, backend, out, err, [])
    await repl.aclose()


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(PATHS) as serving:
        yield serving


# -- the table ---------------------------------------------------------------------------------------------------------


async def test_the_nodes_of_the_pool_as_a_table(pooled: Talk):
    out, err = await pooled.say("/nodes")
    header, desk, gone = out.splitlines()
    assert " ".join(header.split()) == "NODE STATE VERSION BUSY QUEUE ERRORS MODEL VRAM TTFT TOK/S ABOUT"
    assert " ".join(desk.split()) == "desk up 0.12.6 0/2 1 0 tiny:latest 100 % 400 ms 40.0"
    assert gone.endswith("connection refused (next look in 4.0 s)")
    assert err == ""


async def test_without_a_pool_a_look_at_each_node(talk: Talk, server: FaultServer):
    talk.repl.change("nodes", f"{server.url},{NOTHING_THERE}")
    out, _ = await talk.say("/nodes")
    assert f"ok      {server.url}" in out
    assert f"down    {NOTHING_THERE}" in out
    assert talk.repl.last_exit is ExitCode.ANSWERED


async def test_where_nothing_can_serve_the_nodes_are_looked_at_all_the_same(talk: Talk):
    talk.repl.sessions = SessionHolder()
    talk.repl.change("nodes", NOTHING_THERE)
    out, err = await talk.say("/nodes")
    assert f"down    {NOTHING_THERE}" in out
    assert err.startswith("nothing can serve a call")
    await talk.repl.sessions.aclose()


# -- changing them -----------------------------------------------------------------------------------------------------


async def test_add_check_and_remove_write_the_file_and_apply_at_once(talk: Talk, server: FaultServer, own_home: Path):
    file = own_home / ".synapticllamas.json"
    file.write_text('{"model": "m"}')
    _, err = await talk.say(f"/nodes add {server.url} --name desk --parallel 2")
    assert "Ollama 0.12.6, tiny:latest" in err
    entry = {"url": server.url, "parallel": 2, "name": "desk"}
    assert json.loads(file.read_text()) == {"model": "m", "nodes": [entry]}
    assert [(node.name, node.parallel) for node in talk.repl.settings.nodes] == [("desk", 2)]
    assert talk.complete("/nodes check d") == ["/nodes check desk"]
    out, _ = await talk.say("/nodes check desk")
    assert out.startswith("ok      desk")
    out, _ = await talk.say("/nodes list")
    assert "desk" in out
    out, _ = await talk.say("/nodes list --check")
    assert out.startswith("ok      desk")
    await talk.say("/nodes remove desk")
    assert json.loads(file.read_text()) == {"model": "m", "nodes": []}
    assert talk.repl.settings.nodes == []


async def test_what_was_set_here_makes_way_for_what_is_added(talk: Talk, server: FaultServer):
    await talk.say("/set nodes http://other:1")
    await talk.say(f"/nodes add {server.url}")
    assert [node.url for node in talk.repl.settings.nodes] == [server.url]


async def test_check_fails_where_not_all_is_well(talk: Talk):
    await talk.say(f"/nodes check {NOTHING_THERE}")
    assert talk.repl.last_exit is ExitCode.NO_BACKEND


async def test_discover_contacts_what_was_agreed_to(talk: Talk, server: FaultServer, own_home: Path):
    _, err = await talk.say(f"/nodes discover 127.0.0.1 --port {server.port}")
    assert "1 address (127.0.0.1)" in err
    assert "add --yes" in err
    assert server.connections == 0
    out, err = await talk.say(f"/nodes discover 127.0.0.1 --port {server.port} --yes")
    assert server.url in out
    assert f"/nodes add {server.url}" in err
    assert talk.repl.settings.nodes == []
    await talk.say(f"/nodes discover 127.0.0.1 --port {server.port} --yes --add")
    assert [node.url for node in talk.repl.settings.nodes] == [server.url]
    _, err = await talk.say("/nodes discover 127.0.0.1 --port 9 --yes")
    assert "no Ollama answers at port 9" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/nodes frobnicate", "usage: /nodes"),
        ("/nodes add", "usage: /nodes"),
        ("/nodes add a --parallel 99", "usage: /nodes"),
        ("/nodes add a --what", "usage: /nodes"),
        ("/nodes add ftp://a", "http://a"),
        ("/nodes add a --config x.json", "--config is for the command line"),
        ("/nodes check --json", "--json is for the command line"),
        ("/nodes check --set a=b", "--set is for the command line"),
        ("/nodes remove desk", "there are no nodes"),
        ("/nodes check desk", "there are no nodes"),
        ("/nodes discover 10.0.0.0/8 --yes", "10.0.0.0/24"),
        ("/explain 0", "usage: /explain"),
        ("/explain many", "usage: /explain"),
        ("/explain 1 2", "usage: /explain"),
    ],
)
async def test_mistakes_are_said_and_change_nothing(talk: Talk, line: str, said: str, own_home: Path):
    _, err = await talk.say(line)
    assert "error: " in err
    assert said in err
    assert "bug" not in err
    assert talk.repl.last_exit is ExitCode.USAGE
    assert not (own_home / ".synapticllamas.json").exists()


async def test_the_help_of_an_action(talk: Talk, capsys: pytest.CaptureFixture[str]):
    _, err = await talk.say("/nodes add --help")
    assert err == ""
    assert "--token-env" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "notice"),
    [("/stats", "/stats is /nodes here"), ("/dashboard", "/dashboard is /nodes here")],
)
async def test_names_of_the_older_program_work_and_say_what_they_are_now(pooled: Talk, line: str, notice: str):
    out, err = await pooled.say(line)
    assert err.strip() == notice
    assert "desk" in out


async def test_health_of_the_older_program(talk: Talk):
    out, err = await talk.say(f"/health {NOTHING_THERE}")
    assert err.startswith("/health is /nodes check here")
    assert out.startswith("down")


async def test_completion(talk: Talk):
    assert talk.complete("/nodes ") == [f"/nodes {name}" for name in ("list", "add", "remove", "check", "discover")]
    assert talk.complete("/nodes add ") == []


# -- /explain ----------------------------------------------------------------------------------------------------------


async def test_explain_shows_the_last_calls_with_every_candidate(pooled: Talk):
    out, _ = await pooled.say("/explain")
    assert out == "no call was sent to a node yet\n"
    pooled.backend.decided = [decision(f"step{number}") for number in range(5)]
    out, _ = await pooled.say("/explain")
    assert re.findall(r"step\d", out) == ["step2", "step3", "step4"]
    lines = out.splitlines()
    assert lines[0].endswith("step2: tiny:latest to desk after 400 ms in the queue")
    assert " ".join(lines[1].split()) == "NODE EXPECTED WAIT LOAD RUN CACHED WHY"
    assert " ".join(lines[2].split()) == "* desk 3.1 s 400 ms 0 2.7 s 512 tokens taken"
    assert " ".join(lines[3].split()) == "gone – down: connection refused"
    out, _ = await pooled.say("/explain 1")
    assert re.findall(r"step\d", out) == ["step4"]


async def test_explain_without_a_pool_says_why_there_is_nothing_to_explain(talk: Talk):
    out, _ = await talk.say("/explain")
    assert out == "there is nothing to choose: all calls go to scripted (given by the caller)\n"


# -- on a terminal -----------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with open_terminal([DRIVER], tmp_path, environment(tmp_path), columns=110) as opened:
        yield opened


def queue_of_desk(terminal: Terminal) -> int:
    match = re.search(r"^desk .* 0/2 +(\d+) ", terminal.text, re.MULTILINE)
    return int(match[1]) if match else 0


def test_the_table_is_refreshed_in_place_until_a_key_is_pressed(terminal: Terminal):
    terminal.wait_for_prompt()
    terminal.type("/nodes", ENTER)
    terminal.wait("any other key, leaves this", lambda shown: queue_of_desk(shown) >= 3)
    assert terminal.text.count("desk") == 1
    before = terminal.prompts
    terminal.type("x")
    terminal.wait(lambda shown: shown.prompts > before)
    text = terminal.wait_for_prompt()
    assert "leaves this" not in text
    assert text.count("desk") == 1
    assert "connection refused" in text
    terminal.ask("hello", "hello")


def test_ctrl_c_leaves_the_table_and_the_terminal_as_it_was(terminal: Terminal):
    terminal.wait_for_prompt()
    terminal.type("/nodes", ENTER)
    terminal.wait("leaves this")
    terminal.type(CTRL_C)
    terminal.wait("interrupted")
    terminal.ask("still here?", "still here?")
    terminal.type(CTRL_D)
    assert terminal.wait_for_end() == 0


def test_a_terminal_that_goes_away_ends_the_program(tmp_path: Path):
    with open_terminal([DRIVER], tmp_path, environment(tmp_path)) as opened:
        opened.wait_for_prompt()
        opened.type("/nodes", ENTER)
        opened.wait("leaves this")
        opened.program.close(force=False)
        wait_until(lambda: not opened.program.isalive(), "the end of the program")


def test_a_narrow_terminal_is_not_overrun(tmp_path: Path):
    with open_terminal([DRIVER], tmp_path, environment(tmp_path), columns=60) as opened:
        opened.wait_for_prompt()
        opened.type("/nodes", ENTER)
        opened.wait("leaves this", lambda shown: opened.text.count("desk") == 1)
        opened.type(ENTER)
        opened.wait_for_prompt()
        assert opened.text.count("NODE") == 1


def test_discover_asks_at_the_prompt(tmp_path: Path):
    with open_terminal([DRIVER], tmp_path, environment(tmp_path)) as opened:
        opened.wait_for_prompt()
        opened.type("/nodes discover 127.0.0.1 --port 9", ENTER)
        opened.wait("Contact them? [y/N]")
        opened.type("n", ENTER)
        opened.wait("nothing was contacted")
        opened.wait_for_prompt()
        opened.type("/nodes discover 127.0.0.1 --port 9", ENTER)
        opened.wait(lambda shown: shown.text.count("Contact them? [y/N]") == 2)
        opened.type("y", ENTER)
        opened.wait("no Ollama answers at port 9")


def test_the_prompt_imports_nothing_that_it_does_not_show():
    """What a command needs is imported by that command, and what a run needs while the first question is typed."""
    import subprocess

    code = (
        "import sys, synaptic.ui.repl.app, synaptic.ui.repl.terminal\n"
        "late = ('synaptic.ui.actions.nodes', 'synaptic.ui.screen.nodes_view', 'synaptic.ui.screen.explain_view',"
        " 'synaptic.ui.repl.watching', 'synaptic.backends', 'httpx', 'aiohttp', 'rich', 'click', 'networkx', 'sqlite3',"
        " 'yaml', 'jinja2', 'synaptic.runtime.journal', 'synaptic.agents.definition', 'synaptic.pipeline.spec',"
        " 'synaptic.settings.edit')\n"
        "print([name for name in late if name in sys.modules])"
    )
    # A child that coverage measures has imported its database.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT, env=environ
    )
    assert done.stdout.strip() == "[]"
