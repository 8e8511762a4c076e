"""The prompt as a person meets it: the real program on a pseudo-terminal, and its parts without one."""

from __future__ import annotations

import array
import asyncio
import fcntl
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import tty
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_support import wait_until
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.output import DummyOutput
from repl_driver import ENDLESS, OVERRIDES, scripted_session
from repl_terminal import (
    ALT_ENTER,
    BRACKETED_PASTE_ON,
    CTRL_C,
    CTRL_D,
    CTRL_R,
    DRIVER,
    ENTER,
    PASTE_BEGIN,
    PASTE_END,
    PATIENCE,
    ROOT,
    TAB,
    UP,
    Terminal,
    environment,
    open_terminal,
)

from synaptic.backends.scripted import Reply, ScriptedBackend
from synaptic.errors import ExitCode
from synaptic.runtime.session import Session
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.conversation import Conversation
from synaptic.ui.repl.interrupts import DoublePress, Interrupted, Moment, carry_out, interruptible, without_echo
from synaptic.ui.repl.plain import converse_plainly
from synaptic.ui.repl.prompt import LineEditor, open_history, status_line
from synaptic.ui.repl.repl import Repl, Sources
from synaptic.ui.repl.screen import Screen
from synaptic.ui.repl.sessions import SessionHolder
from synaptic.ui.repl.terminal import converse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.input import PipeInput

    from synaptic.messages import ChatRequest
    from synaptic.settings import Settings
    from synaptic.ui.repl.sessions import SessionFactory

COLOUR = re.compile(rb"\x1b\[[0-9;]*\b(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])\b[0-9;]*m")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a home directory with nothing in it."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def terminal(home: Path) -> Iterator[Terminal]:
    """Give the program with a backend that does what a question asks for."""
    with open_terminal([str(DRIVER)], home, environment(home)) as opened:
        opened.wait_for_prompt()
        yield opened


# -- on a terminal ---------------------------------------------------------------------------------------------


def test_main_opens_the_prompt_and_answers(home: Path) -> None:
    """``python main.py`` on a terminal is the prompt; Ctrl-D leaves it with 0."""
    arguments = [str(ROOT / "main.py"), "--set", "backend=scripted", "-p", "answer"]
    with open_terminal(arguments, home, environment(home), warm=False) as opened:
        opened.wait("pipeline answer", "/help lists the commands", "answer · ")
        opened.ask("Hello there", "\nHello there\n", "answer: ")
        opened.type(CTRL_D)
        assert opened.wait_for_end() == 0


def test_an_answer_and_the_bar_that_counts(terminal: Terminal) -> None:
    terminal.ask("Hello there", "\nHello there\n")
    terminal.wait("answer · scripted · scripted · 1 turn · ")


def test_a_conversation_carries_over(terminal: Terminal) -> None:
    """The backend echoes what it is sent: the second prompt has the first turn in it."""
    terminal.ask("/raw")
    terminal.ask("My name is Ada")
    terminal.ask("What is my name?", "Person: My name is Ada\nYou: My name is Ada")


@pytest.mark.parametrize("new_line", [ALT_ENTER, f"\\{ENTER}"], ids=["alt-enter", "backslash"])
def test_a_question_may_have_several_lines(terminal: Terminal, new_line: str) -> None:
    terminal.type("one", new_line, "two")
    terminal.wait("> one\n  two")
    terminal.type(ENTER)
    terminal.wait("\none\ntwo\n")
    terminal.wait_for_prompt()


def test_two_backslashes_at_the_end_are_sent(terminal: Terminal) -> None:
    terminal.ask("one\\\\", "\none\\\\\n")


def test_a_pasted_line_break_does_not_send(terminal: Terminal) -> None:
    terminal.type(PASTE_BEGIN, "one\ntwo\n/exit", PASTE_END)
    terminal.wait("> one\n  two\n  /exit")
    terminal.type(ENTER)
    terminal.wait("\none\ntwo\n/exit\n")
    terminal.wait_for_prompt()


def test_tab_completes_a_command(terminal: Terminal) -> None:
    terminal.type("/mo")
    terminal.wait("Show the models, or choose one")
    terminal.type(TAB)
    terminal.wait(lambda terminal: terminal.line.startswith("> /model"))
    terminal.type(ENTER, ENTER)
    terminal.wait("given by the caller")
    terminal.wait_for_prompt()


def test_tab_before_the_menu_is_there_completes_what_is_unique(terminal: Terminal) -> None:
    terminal.type("/stat", TAB, ENTER)
    terminal.wait("last run")


def test_enter_takes_a_completion_and_does_not_send_it(terminal: Terminal) -> None:
    terminal.type("/st")
    terminal.wait("Show pipeline, model")
    terminal.type(TAB)
    terminal.wait(lambda terminal: terminal.line == "> /status")
    terminal.type(ENTER, ENTER)
    terminal.wait("last run")


def test_a_command_word_in_a_question_is_a_question(terminal: Terminal) -> None:
    terminal.ask("exit strategies of bees", "\nexit strategies of bees\n")


def test_an_unknown_command_names_the_nearest(terminal: Terminal) -> None:
    terminal.ask("/modle", "did you mean /model?")


def test_a_broken_set_leaves_everything_as_it_is(terminal: Terminal) -> None:
    terminal.ask("/set num_ctx 3", "error: num_ctx must be at least 256")
    terminal.ask("Hello there", "\nHello there\n")


@pytest.mark.parametrize(
    ("question", "error"), [("fail", "error: the server failed"), ("crash", "error: this is a bug: ZeroDivisionError")]
)
def test_after_an_error_the_prompt_is_back_and_the_question_is_remembered(
    terminal: Terminal, question: str, error: str
) -> None:
    terminal.ask(question, error)
    terminal.type(UP)
    terminal.wait(lambda terminal: terminal.line == f"> {question}")


def test_ctrl_c_cancels_the_run_and_keeps_what_there_is(terminal: Terminal) -> None:
    terminal.type("talk for ever", ENTER)
    terminal.wait("word word word")
    terminal.type(CTRL_C)
    terminal.wait("interrupted after", "the answer so far is part of the conversation")
    terminal.wait("hint: to go on with it: synaptic runs resume")
    terminal.wait_for_prompt()
    terminal.ask("/history", "1  talk for ever", "word word", "(interrupted)")
    terminal.ask("/clear")
    terminal.ask("still there?", "\nstill there?\n")


def test_ctrl_c_before_the_first_token_brings_the_prompt_back(terminal: Terminal) -> None:
    terminal.type("hang", ENTER)
    terminal.wait("editor")
    terminal.type(CTRL_C)
    terminal.wait("\ninterrupted")
    terminal.ask("still there?", "\nstill there?\n")
    assert sum(line.startswith("interrupted") for line in terminal.text.splitlines()) == 1


def test_ctrl_c_in_the_same_moment_as_enter_cancels_the_line(terminal: Terminal) -> None:
    terminal.type("talk for ever", ENTER, CTRL_C)
    terminal.wait("\ninterrupted")
    terminal.ask("still there?", "\nstill there?\n")


def test_ctrl_c_clears_the_line_and_counts_for_nothing(terminal: Terminal) -> None:
    """The press that clears a line is not the first of the two that leave."""
    terminal.type("some text")
    terminal.wait("> some text")
    terminal.type(CTRL_C)
    terminal.wait_for_prompt()
    terminal.type(CTRL_C)
    terminal.wait("Ctrl-C once more, or Ctrl-D, leaves.")


def test_ctrl_c_twice_on_an_empty_line_leaves(terminal: Terminal) -> None:
    terminal.type(CTRL_C)
    terminal.wait("Ctrl-C once more, or Ctrl-D, leaves.", lambda terminal: terminal.line == ">")
    terminal.type(CTRL_C)
    assert terminal.wait_for_end() == 0


def test_a_signal_from_outside_is_like_ctrl_c(terminal: Terminal) -> None:
    terminal.type("some text")
    terminal.wait("> some text")
    terminal.program.kill(signal.SIGINT)
    terminal.wait_for_prompt()
    terminal.type("hang", ENTER)
    terminal.wait("editor")
    terminal.program.kill(signal.SIGINT)
    terminal.wait("\ninterrupted")
    terminal.wait_for_prompt()


def test_ctrl_d_deletes_in_text_and_leaves_on_an_empty_line(terminal: Terminal) -> None:
    terminal.type("ab\x1b[D", CTRL_D)
    terminal.wait(lambda terminal: terminal.line == "> a")
    terminal.type("\x7f", CTRL_D)
    assert terminal.wait_for_end() == 0


def test_a_terminal_that_goes_away_ends_the_program(home: Path) -> None:
    """The older program looped for ever at the end of its input. No signal helps here: it is a plain end of file."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(DRIVER)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=home,
        env=environment(home),
        start_new_session=True,
    ) as program:
        os.close(follower)
        seen = b""
        while b"\x1b[?2004h" not in seen:
            seen += os.read(leader, 4096)
        os.close(leader)
        try:
            program.wait(timeout=PATIENCE)
        finally:
            program.kill()
    assert program.returncode >= 0


def test_exit_leaves(terminal: Terminal) -> None:
    terminal.type("/exit", ENTER)
    assert terminal.wait_for_end() == 0


def test_what_is_typed_during_a_run_is_not_lost_and_not_drawn_into_it(terminal: Terminal) -> None:
    terminal.type("take a while", ENTER)
    terminal.wait("tick tick")
    terminal.type("typed ahead")
    terminal.wait(lambda terminal: terminal.line == "> typed ahead")
    assert "tick typed" not in terminal.text


def test_enter_that_is_typed_during_a_run_sends_the_line(terminal: Terminal) -> None:
    terminal.type("take a while", ENTER)
    terminal.wait("tick tick")
    terminal.type("typed ahead", ENTER)
    terminal.wait("\ntyped ahead\n", "2 turns")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_that_are_pasted_during_a_run_are_one_question(terminal: Terminal, line_end: str) -> None:
    marks = BRACKETED_PASTE_ON, b"\x1b[?2004l"
    terminal.type("take a while", ENTER)
    terminal.wait("tick tick")
    assert terminal.raw.rindex(marks[0]) > terminal.raw.rindex(marks[1])  # as a terminal looks at it for a paste
    terminal.type(PASTE_BEGIN, f"one{line_end}two", PASTE_END)
    terminal.wait("> one\n  two", "1 turn")
    terminal.type(ENTER)
    terminal.wait("\none\ntwo\n", "2 turns")


class TerminalText(io.StringIO):
    """What was written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_whoever_reads_the_keys_during_a_run_has_no_marks_of_pasted_text() -> None:
    out = TerminalText()
    screen = Screen(out, io.StringIO(), live=True)
    with screen.run_view():
        with screen.away():
            assert out.getvalue().endswith("\x1b[?2004l")
        assert out.getvalue().endswith("\x1b[?2004h")
        with screen.paused():
            assert out.getvalue().endswith("\x1b[?2004l")
    assert out.getvalue().endswith("\x1b[?2004l")


def test_history_lasts_and_is_for_its_owner_alone(home: Path) -> None:
    with open_terminal([str(DRIVER)], home, environment(home)) as opened:
        opened.ask("first question")
        opened.type("line one", ALT_ENTER, "line two", ENTER)
        opened.wait("2 turns")
        opened.type(CTRL_D)
        opened.wait_for_end()
    with open_terminal([str(DRIVER)], home, environment(home)) as opened:
        opened.wait_for_prompt()
        opened.type(UP)
        opened.wait("> line one\n  line two")
        opened.type(CTRL_C)
        opened.wait_for_prompt()
        opened.type(CTRL_R, "first")
        opened.wait("first question")
    (history,) = home.rglob("history")
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.parent.stat().st_mode & 0o777 == 0o700


def test_a_history_that_cannot_be_kept_is_said_and_the_prompt_works(home: Path) -> None:
    (home / "file").write_text("", encoding="utf-8")
    state = str(home / "file" / "state")
    with open_terminal([str(DRIVER)], home, environment(home, XDG_STATE_HOME=state)) as opened:
        opened.wait("what you type is not remembered")
        opened.ask("Hello there", "\nHello there\n")
        opened.type(UP)
        opened.wait("> Hello there")


def test_no_color_means_none(home: Path) -> None:
    with open_terminal([str(DRIVER)], home, environment(home, NO_COLOR="1")) as opened:
        opened.ask("Hello there", "\nHello there\n")
        opened.ask("/modle", "did you mean")
        opened.type("/mo")
        opened.wait("Show the models")
        assert COLOUR.search(opened.raw) is None


def test_a_dumb_terminal_gets_plain_lines(home: Path) -> None:
    """No control sequence is written, and Ctrl-C and Ctrl-D mean the same as elsewhere."""
    with open_terminal([str(DRIVER)], home, environment(home, TERM="dumb")) as opened:
        opened.ask("Hello there", "\nHello there\n")
        opened.type("one\\", ENTER, "two", ENTER)
        opened.wait("\none\ntwo\n")
        opened.wait_for_prompt()
        opened.type("hang", ENTER)
        opened.wait(lambda terminal: terminal.text.count("answer: started") == 3)
        opened.type(CTRL_C)
        opened.wait("interrupted after")
        opened.wait_for_prompt()
        opened.type(CTRL_C)
        opened.wait("Ctrl-C once more")
        opened.wait_for_prompt()
        opened.type(CTRL_D)
        assert opened.wait_for_end() == 0
        assert b"\x1b" not in opened.raw


# -- from a pipe -----------------------------------------------------------------------------------------------


def piped(home: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Return how the program ends with ``text`` on its standard input."""
    return subprocess.run(
        [sys.executable, str(DRIVER)],
        input=text,
        capture_output=True,
        text=True,
        cwd=home,
        env=environment(home),
        timeout=PATIENCE,
        check=False,
    )


def test_piped_lines_are_answered_until_the_end(home: Path) -> None:
    ended = piped(home, "Hello there\n\n/clear\none\\\ntwo\n/clear\nno line break at the end")
    assert ended.stdout == "Hello there\none\ntwo\nno line break at the end\n"
    assert "> " not in ended.stderr
    assert ended.returncode == 0
    assert not list(home.rglob("history"))


def test_piped_lines_end_at_exit_and_with_the_code_of_the_last_failure(home: Path) -> None:
    ended = piped(home, "fail\n/modle\nHello there\n/exit\nnever asked\n")
    assert ended.stdout == "Hello there\n"
    assert "error: the server failed (scripted)" in ended.stderr
    assert ended.returncode == ExitCode.USAGE


def test_nothing_piped_is_nothing_done(home: Path) -> None:
    ended = piped(home, "")
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


def test_an_interrupt_ends_a_piped_conversation(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=environment(home),
    ) as program:
        assert program.stdin is not None
        assert program.stderr is not None
        program.stdin.write(b"hang\nnever asked\n")
        program.stdin.flush()
        assert b"answer: started" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=PATIENCE)
    assert program.returncode == ExitCode.INTERRUPTED
    assert b"interrupted after" in err
    assert b"Traceback" not in err


# -- the parts, in this process --------------------------------------------------------------------------------


def make_repl(out: io.StringIO, err: io.StringIO, factory: SessionFactory = scripted_session) -> Repl:
    """Return a program that writes to ``out`` and ``err``."""
    sources = Sources(None, OVERRIDES, {}, {})
    return Repl(
        sources.load(),
        sources,
        screen=Screen(out, err, live=True),
        registry=REGISTRY,
        sessions=SessionHolder(factory),
    )


@pytest.fixture
def keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    """Give a keyboard for a prompt in this process."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(home)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


async def test_lines_are_carried_out_until_ctrl_d(keys: PipeInput) -> None:
    out, err = io.StringIO(), io.StringIO()
    repl = make_repl(out, err)
    keys.send_text(f"one{ALT_ENTER}two{ENTER}/clear{ENTER}three\\{ENTER}four{ENTER}/stat{TAB}{ENTER}{CTRL_D}")
    async with asyncio.timeout(PATIENCE):
        assert await converse(repl) is ExitCode.ANSWERED
    assert out.getvalue().startswith("one\ntwo\n\x1b[H\x1b[2J\x1b[3Jthree\nfour\npipeline")
    assert "\nbackend   scripted scripted\n" in out.getvalue()
    assert re.fullmatch(r"answer · 1 turn · \d+ tokens · /help", status_line(repl))
    assert [status_line(repl, width) for width in (15, 14, 3)] == ["answer · 1 turn", "answer", "answer"]


async def test_ctrl_c_clears_then_hints_then_leaves(keys: PipeInput) -> None:
    out, err = io.StringIO(), io.StringIO()
    keys.send_text(f"text{CTRL_C}{CTRL_C}")
    keys.send_text(CTRL_C)
    async with asyncio.timeout(PATIENCE):
        assert await converse(make_repl(out, err)) is ExitCode.ANSWERED
    assert err.getvalue() == "Ctrl-C once more, or Ctrl-D, leaves.\n"
    assert out.getvalue() == ""


def test_ctrl_c_just_before_a_run_hears_it_cancels_that_run_alone() -> None:
    class Pressed(Conversation):
        """Is looked at between the line and its run; Ctrl-C is pressed then, the first time."""

        presses = 1

        def __len__(self) -> int:
            if self.presses:
                self.presses = 0
                signal.raise_signal(signal.SIGINT)
            return super().__len__()

    out, err = io.StringIO(), io.StringIO()
    repl = make_repl(out, err)
    repl.conversation = Pressed()

    assert converse_plainly(repl, io.BytesIO(b"one\ntwo\n"), person=True) is ExitCode.ANSWERED
    assert out.getvalue() == "two\n"
    assert err.getvalue().startswith("interrupted\n")


async def test_ctrl_c_behind_enter_cancels_the_line_and_what_is_typed_behind_it_stays(keys: PipeInput) -> None:
    out, err = io.StringIO(), io.StringIO()
    keys.send_text(f"one{ENTER}two{CTRL_C}three{ENTER}{CTRL_D}")
    async with asyncio.timeout(PATIENCE):
        assert await converse(make_repl(out, err)) is ExitCode.ANSWERED
    assert out.getvalue() == "three\n"
    assert err.getvalue().startswith("interrupted\n")


async def test_ctrl_c_that_came_before_the_terminal_left_the_prompts_mode_is_heard() -> None:
    """Then it is a byte in the terminal's queue, which nobody can read before the next prompt."""
    leader, follower = pty.openpty()
    with os.fdopen(leader, "wb", buffering=0) as hands, os.fdopen(follower) as terminal:
        source = Vt100Input(terminal)
        with create_app_session(input=source, output=DummyOutput()):
            editor = LineEditor(make_repl(io.StringIO(), io.StringIO()), InMemoryHistory(), on_ready=lambda: None)
            with source.raw_mode():
                hands.write(f"x{CTRL_C}next".encode())
                select.select([terminal], [], [])
            assert editor.interrupted()
            assert [key.data for key in get_typeahead(source)] == list("next")
            assert not editor.interrupted()


async def test_a_signal_between_the_prompt_and_the_run_cancels_the_run() -> None:
    moment, done = Moment(), []

    async def work() -> None:
        done.append("work")

    before = signal.getsignal(signal.SIGINT)
    with moment.heeded():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            await interruptible(work(), moment.taken)
        await interruptible(work(), moment.taken)
    assert done == ["work"]
    assert signal.getsignal(signal.SIGINT) is before


async def test_exit_ends_the_loop(keys: PipeInput) -> None:
    keys.send_text(f"/exit{ENTER}never read{ENTER}")
    async with asyncio.timeout(PATIENCE):
        assert await converse(make_repl(io.StringIO(), io.StringIO())) is ExitCode.ANSWERED


async def test_a_history_without_a_file_is_said(keys: PipeInput, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    err = io.StringIO()
    keys.send_text(CTRL_D)
    async with asyncio.timeout(PATIENCE):
        await converse(make_repl(io.StringIO(), err))
    assert "what you type is not remembered" in err.getvalue()
    assert list(home.iterdir()) == []


def test_a_history_that_becomes_unwritable_is_no_error(tmp_path: Path) -> None:
    history, notice = open_history(tmp_path / "state")
    assert notice is None
    (tmp_path / "state" / "history").unlink()
    (tmp_path / "state").rmdir()
    history.append_string("a question")
    assert history.get_strings() == ["a question"]
    assert not isinstance(history, InMemoryHistory)


@pytest.mark.parametrize("person", [True, False])
def test_plain_lines(capsys: pytest.CaptureFixture[str], *, person: bool) -> None:
    """A person gets a prompt and the code 0; a program gets no prompt and the code of the last failure."""
    out, err = io.StringIO(), io.StringIO()
    source = io.BytesIO(b"Hello\r\n/clear\none\\\ntwo\nfail\n\n/exit\nfail\n")
    code = converse_plainly(make_repl(out, err), source, person=person)
    assert out.getvalue() == "Hello\n\x1b[H\x1b[2J\x1b[3Jone\ntwo\n"
    assert code is (ExitCode.ANSWERED if person else ExitCode.FAILED)
    assert capsys.readouterr().err == ("> > >   > > > " if person else "")


def interrupting_session(settings: Settings) -> Session:
    """Return a session whose model is interrupted by Ctrl-C when it has said a word."""

    def answer(_: ChatRequest) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        return ENDLESS

    return Session(settings, backend=ScriptedBackend(answer))


async def test_an_interrupted_line_keeps_what_there_is() -> None:
    err = io.StringIO()
    repl = make_repl(io.StringIO(), err, interrupting_session)
    assert not await carry_out(repl, "Hello")
    assert repl.conversation[-1].status == "interrupted"
    assert repl.conversation[-1].answer == "word"
    assert err.getvalue().endswith("the answer so far is part of the conversation\n")
    assert repl.conversation.messages()[-1].content.startswith("word\n\n[")


@pytest.mark.parametrize(("person", "code"), [(True, ExitCode.ANSWERED), (False, ExitCode.INTERRUPTED)])
def test_plain_lines_after_an_interrupted_run(*, person: bool, code: ExitCode) -> None:
    """A person goes on; for a program it is the end."""
    out = io.StringIO()
    source = io.BytesIO(b"Hello\n/config path\n")
    assert converse_plainly(make_repl(out, io.StringIO(), interrupting_session), source, person=person) is code
    assert (".synapticllamas.json" in out.getvalue()) is person


def test_plain_lines_end_with_their_source() -> None:
    assert converse_plainly(make_repl(io.StringIO(), io.StringIO()), io.BytesIO(b"a\\"), person=False) == 0


def test_a_plain_line_that_is_no_text_is_refused_and_the_others_are_asked() -> None:
    out, err = io.StringIO(), io.StringIO()
    source = io.BytesIO("café?\n".encode("latin-1") + b"one \\\n\xff\n" + "café!\n".encode())
    assert converse_plainly(make_repl(out, err), source, person=False) is ExitCode.USAGE
    assert out.getvalue() == "café!\n"
    assert err.getvalue().count("standard input is not UTF-8 text, not asked: ") == 2
    assert "iconv" in err.getvalue()


class Impatient(io.BytesIO):
    """Lines, some of which are Ctrl-C."""

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line, or be interrupted in reading it."""
        line = super().readline(size)
        if line == b"^C\n":
            raise KeyboardInterrupt
        return line


def test_plain_lines_of_a_person_go_on_after_ctrl_c() -> None:
    out, err = io.StringIO(), io.StringIO()
    source = Impatient(b"^C\nHello\n^C\n^C\nnever read\n")
    assert converse_plainly(make_repl(out, err), source, person=True) is ExitCode.ANSWERED
    assert out.getvalue() == "Hello\n"
    assert err.getvalue().count("Ctrl-C once more") == 2


def test_plain_lines_of_a_program_end_at_an_interrupt() -> None:
    assert converse_plainly(make_repl(io.StringIO(), io.StringIO()), Impatient(b"^C\n"), person=False) == 130


def test_a_second_press_counts_for_two_seconds() -> None:
    times = iter([0.0, 2.0, 2.1, 10.0, 10.1])
    presses = DoublePress(lambda: next(times))
    assert [presses.again() for _ in range(4)] == [False, True, True, False]
    presses.forget()
    assert not presses.again()


async def test_an_interrupt_cancels_the_work_and_waits_for_its_cleaning_up() -> None:
    """A second press at once does not cancel the cleaning up; the signal's old handler is back afterwards."""
    before = signal.getsignal(signal.SIGINT)
    steps: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.01)
            steps.append("clean")

    with pytest.raises(Interrupted):
        await interruptible(work())
    assert steps == ["clean"]
    assert signal.getsignal(signal.SIGINT) is before


async def test_work_that_ends_is_returned() -> None:
    async def work() -> int:
        return 7

    assert await interruptible(work()) == 7


async def test_cancelling_from_outside_is_no_interrupt() -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(interruptible(work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_is_no_terminal_has_no_echo_to_turn_off() -> None:
    with without_echo(io.StringIO()):
        pass
    with Path(os.devnull).open(encoding="utf-8") as nothing, without_echo(nothing):
        pass


def test_the_echo_of_a_terminal_is_back_afterwards() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader), os.fdopen(follower) as terminal:
        before = termios.tcgetattr(follower)
        with without_echo(terminal):
            assert not termios.tcgetattr(follower)[3] & termios.ECHO
        assert termios.tcgetattr(follower) == before


def waiting(descriptor: int) -> int:
    """Return how many bytes can be read at once."""
    counted = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, counted)
    return counted[0]


def test_a_long_line_and_ctrl_d_that_are_typed_during_a_run_are_there_afterwards() -> None:
    leader, follower = pty.openpty()
    typed = b"word " * 1500 + b"END\x04"
    with os.fdopen(leader), os.fdopen(follower) as terminal:
        with without_echo(terminal):
            typing = threading.Thread(target=os.write, args=(leader, typed))  # blocks while nothing is read
            typing.start()
            wait_until(lambda: waiting(follower) > 4000, "a full line")
        tty.setraw(follower, termios.TCSANOW)  # as the prompt does
        read = b""
        while len(read) < len(typed):
            read += os.read(follower, 4096)
        typing.join()
    assert read == typed
