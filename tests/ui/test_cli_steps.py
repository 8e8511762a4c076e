"""The command line where a pipeline needs more than a model: tools, files, a person, a budget."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_support import MAIN, SCRIPTED, run_here
from repl_terminal import CTRL_C, CTRL_D, ENTER, Terminal, environment, open_terminal

from synaptic.ui.screen.approver import QUESTION

ASKED = QUESTION.strip()
TOOLS = """\
from synaptic import tool

@tool
def shout(text: str, times: int = 1) -> str:
    '''Say it aloud.'''
    print("shouting")
    return text.upper() + "!" * times
"""
SHOUT = """\
version: 1
name: shout
inputs:
  query: {type: string, required: true}
steps:
  say: {tool: shout, with: {text: "{{ inputs.query }}", times: 2}}
result: "{{ steps.say }}"
"""
READ = """\
version: 1
name: read
inputs:
  documents: {type: files, required: true}
steps:
  each:
    foreach: inputs.documents
    agent: editor
    prompt: "{{ item.name }}: {{ item.text }}"
result: "{{ steps.each }}"
"""
APPROVE = """\
version: 1
name: approve
inputs:
  query: {type: string, required: true}
steps:
  draft: {agent: editor, prompt: "Say {{ inputs.query }}", approve: prompt}
  end: {agent: editor, prompt: "And {{ steps.draft }}", approve: output}
result: "{{ steps.end }}"
"""
ASKING = """\
version: 1
name: question
inputs:
  query: {type: string, required: true}
steps:
  which: {ask: "Which {{ inputs.query }}?"DEFAULT}
  end: {agent: editor, prompt: "Say {{ steps.which }}"}
result: "{{ steps.end }}"
"""
RACE_TOOLS = """\
import asyncio
from synaptic import tool

@tool
def fails() -> str:
    raise ValueError("no scales")

@tool
async def hangs() -> str:
    await asyncio.Event().wait()
"""
SPENT = """\
version: 1
name: spent
inputs:
  query: {type: string, required: true}
budget: {calls: CALLS}
steps:
  tell:
    agent: editor
    prompt: "{% if previous %}two {{ previous }}{% else %}one {{ inputs.query }}{% endif %}"
    repeat: {self: true, max: 9}
result: "{{ steps.tell }}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with tools, pipelines and documents."""
    for name, text in (("shout", SHOUT), ("read", READ), ("approve", APPROVE)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "question.yaml").write_text(ASKING.replace("DEFAULT", ""))
    (tmp_path / "proposed.yaml").write_text(ASKING.replace("DEFAULT", ", default: any"))
    (tmp_path / "my_tools.py").write_text(TOOLS)
    (tmp_path / "a.txt").write_text("text of a")
    (tmp_path / "b.txt").write_text("text of b")
    return tmp_path


def ask(folder: Path, *arguments: str, stdin: str | None = None):
    return run_here(*SCRIPTED, *arguments, cwd=folder, stdin=stdin)


# --- tools


def test_a_pipeline_calls_a_function_of_the_persons_own(folder: Path):
    done = ask(folder, "--tools", "my_tools.py", "-p", "shout.yaml", "hello")

    assert (done.code, done.out) == (0, "HELLO!!\n")
    assert "shouting" in done.err  # what it prints is no part of the answer


def test_tools_may_stand_before_and_after_a_subcommand(folder: Path):
    done = ask(folder, "--tools", "./my_tools.py", "run", "--tools", "my_tools.py", "-p", "shout.yaml", "hello")

    assert (done.code, done.out) == (0, "HELLO!!\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_tool.py", "error: there is no file my_tool.py to take tools from\nhint: did you mean 'my_tools.py'?"),
        ("my_tools", "hint: to use the file, write --tools ./my_tools.py"),
        ("json", "error: there are no tools in json"),
    ],
)
def test_a_wrong_module_ends_it_before_anything_is_run(name: str, message: str, folder: Path):
    done = ask(folder, "--tools", name, "-p", "shout.yaml", "hello")

    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_module_that_raises_is_told_without_a_traceback(folder: Path):
    (folder / "broken.py").write_text("import json\n\nint('x')\n")
    done = ask(folder, "--tools", "broken.py", "-p", "shout.yaml", "hello")

    assert (done.code, done.out) == (2, "")
    assert f"error: {folder}/broken.py:3: broken.py cannot be imported: ValueError: invalid literal" in done.err
    assert "Traceback" not in done.err


def test_without_its_tools_a_pipeline_is_wrong(folder: Path):
    done = ask(folder, "-p", "shout.yaml", "hello")

    assert (done.code, done.out) == (2, "")
    assert "shout.yaml:6:15: there is no tool 'shout'" in done.err


def test_a_tool_that_raises_fails_the_run(folder: Path):
    (folder / "my_tools.py").write_text(TOOLS.replace("return ", "return 1 / 0 or "))
    done = ask(folder, "--tools", "my_tools.py", "-p", "shout.yaml", "hello")

    assert done.code == 1
    assert "the tool 'shout' raised ZeroDivisionError: division by zero" in done.err


# --- files


@pytest.mark.parametrize(
    "given",
    [("-i", "documents=*.txt"), ("-i", "documents=a.txt,b.txt"), ("-idocuments=a.txt", "-i", "documents=b.txt")],
)
def test_files_are_given_by_pattern_by_list_or_one_by_one(given: tuple[str, ...], folder: Path):
    done = ask(folder, "-p", "read.yaml", *given)

    assert done.code == 0, done.err
    assert done.out == "- a.txt: text of a\n- b.txt: text of b\n"


def test_every_file_that_cannot_be_read_is_said(folder: Path):
    (folder / "c.txt").write_bytes(b"\xff")
    done = ask(folder, "-p", "read.yaml", "-i", "documents=*.txt,d.txt,*.md")

    assert (done.code, done.out) == (2, "")
    lines = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert lines[0] == "error: input 'documents' names *.md, which matches no file"
    assert {line.split(" names ")[1].split(",")[0] for line in lines} == {"*.md", "c.txt", "d.txt"}


# --- a person


def test_where_nobody_can_be_asked_nothing_is_run(folder: Path):
    done = ask(folder, "-p", "approve.yaml", "hello")

    assert (done.code, done.out) == (2, "")
    assert "error: a person has to approve draft, end" in done.err
    assert "started" not in done.err


def test_all_that_needs_a_person_is_said_the_first_time(folder: Path):
    steps = "  draft: {agent: editor, prompt: x, approve: prompt}\n  which: {ask: 'Which?'}\n"
    (folder / "both.yaml").write_text(f"version: 1\nname: both\nsteps:\n{steps}result: '{{{{ steps.which }}}}'\n")
    done = run_here(*SCRIPTED, "-p", "both.yaml", cwd=folder)

    assert (done.code, done.out) == (2, "")
    assert "a person has to approve draft and answer which, and no person can be asked here" in done.err
    assert "run it on a terminal, or write a 'default' for which and accept everything with --yes" in done.err


def test_yes_accepts_everything(folder: Path):
    done = ask(folder, "-y", "-p", "approve.yaml", "hello")

    assert (done.code, done.out) == (0, "And Say hello\n")


def test_a_plan_needs_nobody(folder: Path):
    assert ask(folder, "--plan", "-p", "approve.yaml", "hello").code == 0


def test_a_model_that_is_asked_for_goes_before_the_pipelines_own(folder: Path):
    (folder / "own.yaml").write_text(APPROVE.replace("inputs:", "defaults: {model: not-here}\ninputs:"))
    own = ask(folder, "-y", "-p", "own.yaml", "hello")
    asked = ask(folder, "-y", "-m", "scripted", "-p", "own.yaml", "hello")

    assert own.code == 2
    assert "there is no model 'not-here'" in own.err
    assert (asked.code, asked.out) == (0, "And Say hello\n")


def test_at_the_prompt_a_model_that_is_asked_for_goes_before_the_pipelines_own(folder: Path):
    (folder / "own.yaml").write_text(APPROVE.replace("inputs:", "defaults: {model: not-here}\ninputs:"))
    lines = "hello\n/model scripted\nhello\n"
    done = run_here("chat", "-y", *SCRIPTED, "-p", "own.yaml", cwd=folder, stdin=lines)

    assert "there is no model 'not-here'" in done.err
    assert done.out.endswith("And Say hello\n")


@contextmanager
def on_terminal(folder: Path, *arguments: str, **more: str) -> Iterator[Terminal]:
    with open_terminal([MAIN, *SCRIPTED, *arguments], folder, environment(folder, **more)) as terminal:
        yield terminal


def test_a_person_is_asked_in_the_middle_of_a_run(folder: Path):
    editor = folder / "editor.py"
    editor.write_text("import pathlib, sys\npathlib.Path(sys.argv[-1]).write_text('Say goodbye')\n")
    with on_terminal(folder, "-p", "approve.yaml", "hello", EDITOR=f"{sys.executable} {editor}") as terminal:
        terminal.wait("draft: may the run go on with this prompt?", "    Say hello", ASKED)
        terminal.type("e", ENTER)
        terminal.wait("end: may the run go on with this output?", "    And Say goodbye")
        terminal.type("a", ENTER)
        assert terminal.wait_for_end() == 0
        assert terminal.text.rstrip().splitlines()[-2:] != []
        assert "\nAnd Say goodbye" in terminal.text


def test_a_refusal_ends_the_run(folder: Path):
    with on_terminal(folder, "-p", "approve.yaml", "hello") as terminal:
        terminal.wait(ASKED)
        terminal.type("r", ENTER)
        terminal.wait("why?")
        terminal.type("too short", ENTER)
        assert terminal.wait_for_end() == 1
        assert "too short" in terminal.text.split("error:")[1]


def test_ctrl_c_at_a_question_interrupts_the_run(folder: Path):
    with on_terminal(folder, "-p", "approve.yaml", "hello") as terminal:
        terminal.wait(ASKED)
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130


def test_a_person_is_asked_also_where_the_question_is_piped_in(folder: Path):
    program = (
        "import subprocess, sys\n"
        f"command = [sys.executable, {MAIN!r}, *{SCRIPTED!r}, '-p', 'approve.yaml']\n"
        "sys.exit(subprocess.run(command, input=b'piped').returncode)\n"
    )
    with open_terminal(["-c", program], folder, environment(folder)) as terminal:
        for step in ("draft", "end"):
            terminal.wait(f"{step}: may the run go on", lambda terminal: terminal.line == ASKED)
            terminal.type("a", ENTER)
        assert terminal.wait_for_end() == 0
        assert "\nAnd Say piped" in terminal.text


# --- the same at the prompt


def test_the_prompt_asks_and_goes_on(folder: Path):
    with on_terminal(folder, "chat", "-p", "approve.yaml") as terminal:
        terminal.wait_for_prompt()
        terminal.type("hello", ENTER)
        for step in ("draft", "end"):
            terminal.wait(f"{step}: may the run go on", lambda terminal: terminal.line == ASKED)
            terminal.type("a", ENTER)
        terminal.wait("\nAnd Say hello")
        terminal.wait_for_prompt()
        terminal.ask("/status", "approve")
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0


def test_ctrl_c_at_a_question_leads_back_to_the_prompt(folder: Path):
    with on_terminal(folder, "chat", "-p", "approve.yaml") as terminal:
        terminal.wait_for_prompt()
        terminal.type("hello", ENTER)
        terminal.wait(ASKED)
        terminal.type(CTRL_C)
        terminal.wait("interrupted")
        terminal.wait_for_prompt()
        terminal.ask("/status", "approve")


def test_the_prompt_takes_yes_and_tools(folder: Path):
    with on_terminal(folder, "chat", "-y", "--tools", "my_tools.py", "-p", "approve.yaml") as terminal:
        terminal.ask("hello", "\nAnd Say hello")
        terminal.ask("/run shout.yaml good morning", "GOOD MORNING!!")


def test_a_plain_terminal_asks_as_well(folder: Path):
    with on_terminal(folder, "chat", "-p", "approve.yaml", TERM="dumb") as terminal:
        terminal.wait(lambda terminal: terminal.line == ">")
        terminal.type("hello", ENTER)
        for step in ("draft", "end"):
            terminal.wait(f"{step}: may the run go on", lambda terminal: terminal.line == ASKED)
            terminal.type("a", ENTER)
        terminal.wait("\nAnd Say hello", lambda terminal: terminal.line == ">")


def test_lines_from_a_program_have_nobody_to_ask(folder: Path):
    done = run_here("chat", *SCRIPTED, "-p", "approve.yaml", cwd=folder, stdin="hello\n")
    accepted = run_here("chat", "--yes", *SCRIPTED, "-p", "approve.yaml", cwd=folder, stdin="hello\n")

    assert (done.code, done.out) == (2, "")
    assert "a person has to approve draft, end" in done.err
    assert (accepted.code, accepted.out) == (0, "And Say hello\n")


def test_a_wrong_module_keeps_the_prompt_from_opening(folder: Path):
    done = run_here("chat", "--tools", "nothing.py", cwd=folder, stdin="hello\n")

    assert (done.code, done.out) == (2, "")
    assert "there is no file nothing.py" in done.err


# --- budgets


def test_a_run_that_used_up_its_budget_gives_what_it_has(folder: Path):
    (folder / "spent.yaml").write_text(SPENT.replace("CALLS", "2"))
    done = ask(folder, "-p", "spent.yaml", "hello")
    data = json.loads(ask(folder, "--json", "-p", "spent.yaml", "hello").out)

    assert done.code == 0
    assert done.out.endswith("two one hello\n")
    assert "stopped after" in done.err
    assert "calls" in done.err.splitlines()[-2]
    assert (data["status"], data["stop_reason"]) == ("stopped", "budget: calls")


def test_a_quiet_run_says_which_budget_stopped_it_all_the_same(folder: Path):
    (folder / "spent.yaml").write_text(SPENT.replace("CALLS", "1"))
    done = ask(folder, "-q", "-p", "spent.yaml", "hello")

    assert done.code == 0
    assert done.out.endswith("one hello\n")
    assert "calls" in done.err


def test_a_budget_that_ends_before_the_first_answer_is_a_failure(folder: Path):
    (folder / "spent.yaml").write_text(SPENT.replace("calls: CALLS", "tokens: 1"))
    done = ask(folder, "-p", "spent.yaml", "hello")

    assert (done.code, done.out) == (1, "")
    assert "tokens" in done.err


def test_the_prompt_keeps_what_a_budget_left(folder: Path):
    (folder / "spent.yaml").write_text(SPENT.replace("CALLS", "2"))
    done = run_here("chat", *SCRIPTED, "-p", "spent.yaml", cwd=folder, stdin="hello\n/history\n")

    assert done.code == 0
    assert done.out.startswith("two one hello\n")
    assert "two one hello (stopped by its budget)" in done.out


# --- what failed, what lost


def write(folder: Path, name: str, steps: str, result: str) -> None:
    head = f"version: 1\nname: {name}\ninputs: {{query: {{required: true}}}}\nsteps:\n"
    (folder / f"{name}.yaml").write_text(f'{head}{steps}result: "{result}"\n')
    (folder / "race_tools.py").write_text(RACE_TOOLS)


@pytest.mark.parametrize("quiet", [("-q",), ()])
def test_a_failed_run_names_the_step_and_leaves_standard_output_to_the_answer(folder: Path, quiet: tuple[str, ...]):
    steps = """\
  find: {agent: editor, prompt: "found {{ inputs.query }}"}
  weigh: {tool: fails, needs: [find]}
  end: {agent: editor, prompt: "{{ steps.weigh }}"}
"""
    write(folder, "fails", steps, "{{ steps.end }}")
    flags = (*quiet, "--tools", "race_tools.py", "-p", "fails.yaml", "tea")

    done = ask(folder, *flags)
    error = json.loads(ask(folder, "--json", *flags).out)["error"]

    assert (done.code, done.out) == (1, "")
    assert "error: weigh: the tool 'fails' raised ValueError: no scales" in " ".join(done.err.split())
    assert error["step"] == "weigh"
    assert ("output of find:\nfound tea\n" in done.err) == (not quiet)


def test_a_loser_of_a_race_says_that_it_lost(folder: Path):
    steps = """\
  slow: {tool: hangs}
  quick: {agent: editor, prompt: "{{ inputs.query }}"}
  end: {agent: editor, join: first, prompt: "{{ steps.slow }}{{ steps.quick }}"}
"""
    write(folder, "race", steps, "{{ steps.end }}")

    done = ask(folder, "--tools", "race_tools.py", "-p", "race.yaml", "tea")

    assert (done.code, done.out) == (0, "tea\n")
    (row,) = [line for line in done.err.splitlines() if line.startswith("slow: ") and "started" not in line]
    assert row.startswith("slow: cut off") and row.endswith("lost the race")
    assert "interrupted" not in done.err


def test_a_race_of_which_every_racer_fails_is_no_answer(folder: Path):
    steps = """\
  one: {tool: fails}
  two: {tool: fails}
  end: {agent: editor, join: first, prompt: "{{ steps.one }}{{ steps.two }}"}
"""
    write(folder, "race", steps, "The answer: {{ steps.end }}")

    done = ask(folder, "-q", "--json", "--tools", "race_tools.py", "-p", "race.yaml", "tea")
    data = json.loads(done.out)

    assert (done.code, data["status"], data["answer"], data["error"]["step"]) == (1, "failed", "", "end")


def test_a_run_names_every_mistake_of_its_pipeline(folder: Path):
    """Those of form and those of meaning, so that nobody mends one after the other."""
    steps = "  a: {agent: edtor, prompt: x}\n  b: {agent: editor, promt: y}\n"
    (folder / "bad.yaml").write_text(f"version: 1\nname: bad\nsteps:\n{steps}result: '{{{{ steps.c }}}}'\n")
    done = run_here(*SCRIPTED, "-p", "bad.yaml", "hello", cwd=folder)

    assert (done.code, done.out) == (2, "")
    assert all(place in done.err for place in ("bad.yaml:4:14", "bad.yaml:5:22", "bad.yaml:6:13"))


def test_a_question_without_a_person_or_a_default_is_refused(folder: Path):
    for arguments in ((), ("-y",)):
        done = ask(folder, *arguments, "-p", "question.yaml", "city")

        assert (done.code, done.out) == (2, "")
        assert "error: a person has to answer which, and no person can be asked here" in done.err
        assert "started" not in done.err


@pytest.mark.parametrize("arguments", [(), ("-y",)])
def test_without_a_person_the_default_is_the_answer(arguments: tuple[str, ...], folder: Path):
    done = ask(folder, *arguments, "-p", "proposed.yaml", "city")

    assert (done.code, done.out) == (0, "Say any\n")


def test_a_question_and_its_answer_are_in_the_json(folder: Path):
    done = ask(folder, "--json", "-p", "proposed.yaml", "city")
    (step,) = [step for step in json.loads(done.out)["steps"] if step["id"] == "which"]

    assert (step["kind"], step["status"], step["output"], step["attempts"]) == ("ask", "succeeded", "any", 0)


def test_a_question_is_asked_in_the_middle_of_a_run(folder: Path):
    with on_terminal(folder, "-p", "question.yaml", "city") as terminal:
        terminal.wait("which: Which city?")
        terminal.type("Bern", ENTER)
        assert terminal.wait_for_end() == 0
        assert "\nSay Bern" in terminal.text


def test_a_question_is_asked_at_the_prompt(folder: Path):
    with on_terminal(folder, "-p", "proposed.yaml") as terminal:
        terminal.wait("Ask anything.", "\n>")
        terminal.type("city", ENTER)
        terminal.wait("which: Which city?", "Enter alone answers:")
        terminal.type(ENTER)
        terminal.wait("Say any")
        terminal.type("/exit", ENTER)
        assert terminal.wait_for_end() == 0


def test_ctrl_c_at_a_question_of_a_step_interrupts_the_run(folder: Path):
    with on_terminal(folder, "-p", "question.yaml", "city") as terminal:
        terminal.wait("which: Which city?")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
