"""A person approves on a terminal: what is shown, what may be answered, and what an editor does to it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from approval_driver import REPORT, VALUE
from repl_terminal import CTRL_C, CTRL_D, ENTER, ROOT, Terminal, environment, open_terminal

from synaptic.runtime.approval import ApprovalRequest, approve_all
from synaptic.ui.screen.approver import QUESTION, check, make_approver, outline

DRIVER = str(ROOT / "tests" / "support" / "approval_driver.py")
ASKED = QUESTION.strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def asking(home: Path, *names: str, **more: str) -> Iterator[Terminal]:
    with open_terminal([DRIVER, *names], home, environment(home, **more)) as terminal:
        yield terminal


def editor(home: Path, source: str) -> str:
    """Return the command of an editor that does to the file at ``path`` what the source says."""
    script = home / "editor.py"
    script.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[-1])\ntext = path.read_text()\n{source}\n")
    return f"'{sys.executable}' '{script}' --wait"


def asked_again(times: int):
    return lambda terminal: terminal.text.count(ASKED) == times


def decision(terminal: Terminal) -> list[object]:
    assert terminal.wait_for_end() == 0
    line = next(line for line in terminal.text.splitlines() if '["' in line)
    found: list[object] = json.loads(line[line.index("[") if "team" not in line else line.index(" [") :])
    return found


def test_a_prompt_is_shown_as_it_is_and_accepted(home: Path):
    with asking(home, "prompt") as terminal:
        text = terminal.wait("letter: may the run go on with this prompt?", "    Write to Bob.", ASKED)
        assert "    Be [31mkind." in text
        assert "<paused>" in text and "<resumed>" not in text
        terminal.type("a", ENTER)
        terminal.wait("<resumed>")
        assert decision(terminal) == ["accepted", None, ""]


def test_a_structured_output_is_shown_for_reading(home: Path):
    with asking(home, "output") as terminal:
        text = terminal.wait("team[0].report: may the run go on with this output?", ASKED)
        shown = [line for line in text.splitlines() if line.startswith("    ")]
        assert shown == [
            "    title: Pumps",
            "    points:",
            "      - one",
            "      - two",
            "        lines",
            "    score: 0.5",
        ]


@pytest.mark.parametrize(("typed", "reason"), [("too long", "too long"), ("", "")])
def test_a_refusal_may_have_a_reason(typed: str, reason: str, home: Path):
    with asking(home, "prompt") as terminal:
        terminal.wait(ASKED)
        terminal.type("r", ENTER)
        terminal.wait("why? (Enter: no reason)")
        terminal.type(typed, ENTER)
        assert decision(terminal) == ["refused", None, reason]


def test_anything_else_is_asked_again(home: Path):
    with asking(home, "prompt") as terminal:
        for times, answer in enumerate(("", "x", "yes", "aa"), 1):
            terminal.wait(asked_again(times))
            terminal.type(answer, ENTER)
        text = terminal.wait(asked_again(5))
        assert "'x' is no answer here; type a, e or r" in text
        assert "nothing was typed; type a, e or r" in text
        terminal.type("Accept", ENTER)
        assert decision(terminal) == ["accepted", None, ""]


def test_what_was_typed_before_the_question_is_no_answer_to_it(home: Path):
    with asking(home, "early", "prompt") as terminal:
        terminal.wait("type now")
        terminal.type("a", ENTER)
        terminal.wait(ASKED)
        terminal.type("r", ENTER)
        terminal.wait("why?")
        terminal.type(ENTER)
        assert decision(terminal) == ["refused", None, ""]


def test_the_end_of_the_input_refuses(home: Path):
    with asking(home, "prompt") as terminal:
        terminal.wait(ASKED)
        terminal.type(CTRL_D)
        assert decision(terminal) == ["refused", None, "nobody answered"]


def test_the_editor_changes_a_prompt(home: Path):
    command = editor(home, "assert path.suffix == '.md'\npath.write_text(text.replace('Bob', 'Älice'))")
    with asking(home, "prompt", VISUAL=command, EDITOR="false") as terminal:
        terminal.wait(ASKED)
        terminal.type("e", ENTER)
        assert decision(terminal) == ["edited", "Write to Älice.\nBe \x1b[31mkind.", ""]


def test_an_output_that_does_not_fit_its_shape_is_edited_again(home: Path):
    source = """\
assert path.suffix == '.json'
old, new = ('1.5', '1.0') if '1.5' in text else ('0.5', '1.5')
path.write_text(text.replace(old, new))
"""
    with asking(home, "output", EDITOR=editor(home, source)) as terminal:
        terminal.wait(ASKED)
        terminal.type("e", ENTER)
        text = terminal.wait(asked_again(2))
        assert "score" in text.split(ASKED)[1]
        terminal.type("e", ENTER)
        assert decision(terminal) == ["edited", {**VALUE, "score": 1.0}, ""]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pass", "nothing was changed"),
        ("sys.exit(3)", "ended with exit code 3"),
        ("path.unlink()", "No such file or directory"),
        ("path.write_bytes(b'\\xff')", "can't decode"),
        ("path.write_text('')", "the text is empty"),
    ],
)
def test_an_edit_that_comes_to_nothing_is_asked_again(source: str, said: str, home: Path):
    with asking(home, "prompt", EDITOR=editor(home, source)) as terminal:
        terminal.wait(ASKED)
        terminal.type("e", ENTER)
        terminal.wait(said, asked_again(2))
        terminal.type("a", ENTER)
        assert decision(terminal) == ["accepted", None, ""]


def test_an_editor_that_is_not_there_is_named(home: Path):
    with asking(home, "prompt", EDITOR="no-such-editor -w") as terminal:
        terminal.wait(ASKED)
        terminal.type("e", ENTER)
        terminal.wait("no-such-editor: No such file or directory", asked_again(2))


def test_without_an_editor_lines_are_typed(home: Path):
    with asking(home, "prompt") as terminal:
        terminal.wait(ASKED)
        terminal.type("e", ENTER)
        terminal.wait("a line with nothing but . ends it")
        terminal.type("Dear Bob,", ENTER, ENTER, "cheers", ENTER, ".", ENTER)
        assert decision(terminal) == ["edited", "Dear Bob,\n\ncheers", ""]


def test_without_an_editor_data_is_typed_as_json(home: Path):
    with asking(home, "output") as terminal:
        terminal.wait(ASKED)
        terminal.type("e", ENTER)
        terminal.wait('"score": 0.5', "type all of it anew, as JSON; a line with nothing but . ends it")
        terminal.type(json.dumps({**VALUE, "score": 1.0}, indent=1).replace("\n", ENTER), ENTER, ".", ENTER)
        assert decision(terminal) == ["edited", {**VALUE, "score": 1.0}, ""]


def test_steps_that_ask_at_once_are_asked_about_one_after_the_other(home: Path):
    with asking(home, "prompt", "second") as terminal:
        text = terminal.wait(ASKED)
        assert "second:" not in text
        terminal.type("a", ENTER)
        text = terminal.wait("second: may the run go on with this output?", asked_again(2))
        terminal.type("r", ENTER)
        terminal.wait("why?")
        terminal.type("no", ENTER)
        assert terminal.wait_for_end() == 0
        assert 'letter ["accepted", null, ""]' in terminal.text
        assert 'second ["refused", null, "no"]' in terminal.text


def test_a_step_that_is_cancelled_takes_its_question_back(home: Path):
    with asking(home, "timeout", "prompt") as terminal:
        terminal.wait(ASKED, "gone")
        assert terminal.wait_for_end() == 0


def test_ctrl_c_is_a_signal_while_a_question_is_open(home: Path):
    with asking(home, "prompt") as terminal:
        terminal.wait(ASKED)
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() != 0
        assert "KeyboardInterrupt" in terminal.text


def test_without_a_terminal_there_is_nobody_to_ask():
    done = subprocess.run(
        [sys.executable, DRIVER, "prompt"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "nobody to ask\n"


async def test_yes_accepts_everything():
    approver = make_approver(accept_all=True)

    assert approver is approve_all
    assert (await approve_all(ApprovalRequest(path="a", what="output", value="x"))).decision == "accepted"


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("a\nb", ["a", "b"]),
        ("", [""]),
        (3, ["3"]),
        (None, ["null"]),
        ([], ["[]"]),
        ({}, ["{}"]),
        (["a", ["b", "c"], {"k": None}, {}], ["- a", "- - b", "  - c", "- k: null", "- {}"]),
        ({"a": {"b": ["x"]}, "c": "d\ne"}, ["a:", "  b:", "    - x", "c:", "  d", "  e"]),
    ],
)
def test_any_value_can_be_read(value: object, lines: list[str]):
    assert outline(value) == lines


@pytest.mark.parametrize(
    ("draft", "value", "wrong"),
    [
        ('{"title": "x", "points": [], "score": 0}', {"title": "x", "points": [], "score": 0}, None),
        (json.dumps(VALUE, indent=2), None, "nothing was changed"),
        ('{"title": "x"', None, "this is no JSON: Expecting"),
        ('{"title": "x", "points": []}', None, "score"),
        ('{"title": "x", "points": "a", "score": 0}', None, "points"),
    ],
)
def test_an_edited_output_is_checked(draft: str, value: object, wrong: str | None):
    request = ApprovalRequest(path="a", what="output", value=VALUE, shape=REPORT)

    found, complaint = check(draft, request)

    assert found == value
    assert (complaint is None) if wrong is None else wrong in str(complaint)


def test_data_without_a_shape_may_become_any_data():
    request = ApprovalRequest(path="a", what="output", value=[1])

    assert check('{"a": 2}', request) == ({"a": 2}, None)


def test_a_question_is_answered_with_a_line(home: Path):
    with asking(home, "question") as terminal:
        text = terminal.wait("confirm: Which [31mcity?", "\n>")
        assert "Enter alone" not in text and "<paused>" in text
        terminal.type("  Bern ", ENTER)
        assert decision(terminal) == ["edited", "Bern", ""]


def test_an_empty_answer_is_asked_for_again(home: Path):
    with asking(home, "question") as terminal:
        terminal.wait("\n>")
        terminal.type(ENTER)
        terminal.wait("the answer is empty")
        terminal.type("Bern", ENTER)
        assert decision(terminal) == ["edited", "Bern", ""]


@pytest.mark.parametrize(("name", "shown"), [("proposal", "      Berlin"), ("filled", "      size: big")])
def test_enter_alone_takes_the_proposed_answer(name: str, shown: str, home: Path):
    with asking(home, name) as terminal:
        terminal.wait("Enter alone answers:", shown)
        terminal.type(ENTER)
        assert decision(terminal) == ["accepted", None, ""]


def test_a_shape_is_asked_for_field_by_field_and_only_what_is_wrong_again(home: Path):
    with asking(home, "form") as terminal:
        terminal.wait("name (string(1..20)) >")
        terminal.type(ENTER)
        terminal.wait("the answer", "name is missing")
        terminal.type("P2", ENTER)
        terminal.wait("size (enum(small, big)) >")
        terminal.type("huge", ENTER)
        terminal.wait("the answer", 'size: expected one of "small", "big", got "huge"')
        terminal.type("big", ENTER)
        terminal.wait("parts (list[integer]")
        assert "the reply" not in terminal.text
        for line in ("1, 2", "yes"):
            terminal.type(line, ENTER)
        assert decision(terminal) == ["edited", {"name": "P2", "size": "big", "parts": [1, 2], "new": True}, ""]
        assert [terminal.text.count(f"{name} (") for name in ("name", "size", "parts", "new?")] == [2, 2, 1, 1]


def test_fields_inside_a_field_are_asked_for_one_by_one_and_a_list_of_records_as_json(home: Path):
    with asking(home, "place") as terminal:
        terminal.wait("at.zip (integer) >")
        for line in ("a", "3011", "", ""):
            terminal.type(line, ENTER)
        terminal.wait(
            "zip: expected a whole number",
            "at.x? (string) >",
            "owner?.name (string(1..20)) >",
            'as JSON: [{"a": 1, "b": "x"}]) >',
        )
        for line in ("5", "[]"):
            terminal.type(line, ENTER)
        assert decision(terminal) == [
            "edited",
            {"at": {"zip": 3011, "x": None}, "owner": None, "spans": []},
            "",
        ]


def test_what_was_wrong_with_the_answer_before_is_said(home: Path):
    with asking(home, "wrong") as terminal:
        terminal.wait("wrong: Which?", "no such city", "\n>")


def test_a_terminal_that_is_closed_answers_nothing(home: Path):
    with asking(home, "question") as terminal:
        terminal.wait("\n>")
        terminal.type(CTRL_D)
        assert decision(terminal) == ["refused", None, "the input ended"]
