"""What Tab completes in a shell: as bash asks for it, and once in bash itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import MAIN, SCRIPTED, run_here

from synaptic.runtime import Journal, find_session, name_session


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch):
    """Return what a line is completed with: kinds and values."""

    def ask(*words: str) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setenv("_SYNAPTIC_COMPLETE", "bash_complete")
            patch.setenv("COMP_WORDS", " ".join(["synaptic", *words]))
            patch.setenv("COMP_CWORD", str(len(words)))
            done = run_here()
        assert (done.code, done.err) == (0, "")
        return done.out.split("\n")[:-1]

    return ask


@pytest.mark.parametrize(
    ("words", "among"),
    [
        (("ru",), ["plain,run", "plain,runs"]),
        (("runs", "sh"), ["plain,show"]),
        (("why", "-p", "res"), ["plain,research"]),
        (("-p", "./mine"), ["file,./mine"]),
        (("why", "-f", "no"), ["file,no"]),
        (("chat", "-f", "no"), ["file,no"]),
        (("completion", "b"), ["plain,bash"]),
        (("runs", "show", "XX"), [""]),
        (("sessions", "show", "he"), [""]),
    ],
)
def test_words_are_completed(complete, words: tuple[str, ...], among: list[str]):
    assert complete(*words) == among


def test_runs_and_conversations_are_completed(complete):
    run_here("-p", "answer", *SCRIPTED, "hello")
    with Journal() as journal:
        session = find_session(journal)
    ending = session.last.id[-8:]

    assert complete("runs", "show", ending[:2].lower()) == [f"plain,{ending}"]
    assert complete("chat", "--session", session.id[-8:-5]) == [f"plain,{session.id[-8:]}"]
    with Journal() as journal:
        name_session(journal, session.id, "heat")
    assert complete("sessions", "remove", "he") == ["plain,heat"]
    assert complete("chat", "--session", "h") == ["plain,heat"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_takes_what_the_program_writes(tmp_path: Path):
    program = tmp_path / "synaptic"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{MAIN}" "$@"\n')
    program.chmod(0o700)
    lines = [
        'eval "$(./synaptic completion bash)"',
        'COMP_WORDS=(./synaptic runs sh) COMP_CWORD=2; _synaptic_completion ./synaptic; echo "${COMPREPLY[@]}"',
    ]

    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )

    assert (done.stdout, done.stderr) == ("show\n", "")
