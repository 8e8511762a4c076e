"""The tutorial of a split model, followed word for word on three hosts: what it says to type is typed at a terminal."""

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from machine_site import ROOT, Site, three_hosts, until_gone  # noqa: F401 - one is a fixture
from network_hosts import NEEDS_HOSTS
from real_distributed import engine_in_home  # noqa: F401 - a fixture
from repl_terminal import ENTER, Terminal, open_terminal
from ssh_server import NEEDS_SSHD

pytestmark = [NEEDS_HOSTS, NEEDS_SSHD, pytest.mark.real_model, pytest.mark.usefixtures("engine_here", "brief_writers")]

PAGE = ROOT / "docs" / "tutorial" / "split-model.md"
T = TypeVar("T")
MACHINES = {"10.0.0.4": 2, "10.0.0.5": 3}
BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


def commands() -> list[list[str]]:
    """Return what the page has a person type, in order."""
    return [shlex.split(line) for line in re.findall(r"^\$ synaptic (.*)$", PAGE.read_text(), re.MULTILINE)]


@contextmanager
def typed(site: Site, words: list[str]) -> Iterator[Terminal]:
    """Type a command at a terminal of the person's host, with the addresses and the account of this network."""
    words = [_here(site, word) for word in words]
    started = site.hosts.command(1, sys.executable, str(ROOT / "main.py"), *words)
    env = {**site.env, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with open_terminal(["-c", BECOME, *started], Path.cwd(), env, columns=160) as terminal:
        yield terminal


def _here(site: Site, word: str) -> str:
    user, _, address = word.partition("@")
    if user != "ada":
        return word
    return f"{os.environ.get('USER', 'root')}@{site.hosts.address(MACHINES[address])}"


def patiently(wait: Callable[[], T]) -> T:
    """Wait for something that may take minutes on a busy machine."""
    for _ in range(5):
        with contextlib.suppress(AssertionError):
            return wait()
    return wait()


def ended(terminal: Terminal) -> int | None:
    return patiently(terminal.wait_for_end)


def test_from_an_empty_home_to_an_answer_for_which_a_cable_was_pulled(site: Site):
    *before, asked, asked_again = commands()
    assert asked == asked_again
    for words in before:
        with typed(site, words) as terminal:
            if words[:2] == ["machines", "add"]:
                number = MACHINES[words[2].partition("@")[2]]
                terminal.wait(site.servers[number].fingerprint, "Is it that machine's?")
                terminal.type("y", ENTER)
            assert ended(terminal) == 0, terminal.text
            if words[:2] == ["distributed", "plan"]:
                assert "is the machine attic" in terminal.text
                assert "not used" not in terminal.text

    with typed(site, asked) as terminal:
        assert ended(terminal) == 0, terminal.text
    with typed(site, asked_again) as terminal:
        terminal.wait("answers below", lambda shown: len(shown.text.partition("answers below")[2].split()) > 3)
        site.hosts.pull(MACHINES["10.0.0.5"])
        patiently(lambda: terminal.wait(lambda _: not site.connected_to(3)))
        site.hosts.plug(MACHINES["10.0.0.5"])
        assert ended(terminal) == 0, terminal.text
        assert "answer: " in terminal.text
    until_gone(site, 10)
