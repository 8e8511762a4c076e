"""The command line in this process: which words mean what, every subcommand, every mistake."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from cli_support import ECHO, MAIN, NOTHING_THERE, PATIENCE, SCRIPTED, Outcome, node, ollama, run_here, run_process
from fault_server import Script, html, json_reply, respond, stream
from trust_support import trust

from synaptic.errors import UsageError
from synaptic.models import ModelStore
from synaptic.ui import cli
from synaptic.ui.question import MAX_PIPED_BYTES, decode
from synaptic.ui.root import SUBCOMMANDS, NearlyACommand, build_root, program_name, rewrite
from synaptic.ui.screen.console import show_bug
from synaptic.ui.screen.output import table_lines

ASKING = "version: 1\nname: asking\nsteps: {end: {ask: 'Where?', default: here}}\nresult: '{{ steps.end }}'\n"


def command(name: str) -> click.Command | None:
    root = build_root()
    return root.get_command(click.Context(root), name)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str) -> Outcome:
        code = cli.run(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_here


# -- a question, in this process ---------------------------------------------------------------------------------


def test_options_may_stand_before_and_after_the_question(run):
    assert run("-q", "hello", "-p", "answer", *SCRIPTED).out == "hello\n"
    assert run("-qp", "answer", *SCRIPTED, "run", "hello", "again").out == "hello again\n"
    assert run("--pipeline=answer", *SCRIPTED, "-q", "hello").out == "hello\n"


def test_two_dashes_make_a_question_of_a_command(run):
    assert run(*ECHO, "-q", "--", "agents", "list").out == "agents list\n"
    assert run(*ECHO, "-q", "--", "-5", "+", "3").out == "-5 + 3\n"


def test_a_json_run_is_one_document(run):
    outcome = run("--json", "-q", *ECHO, "hello")

    document = json.loads(outcome.out)
    assert outcome.err == ""
    assert {"run_id", "status", "answer", "steps", "usage", "stop_reason"} <= document.keys()
    assert (document["status"], document["answer"]) == ("succeeded", "hello")
    keys = {
        "id",
        "agent",
        "status",
        "model",
        "backend",
        "node",
        "attempts",
        "usage",
        "started_at",
        "ended_at",
        "output",
    }
    assert keys <= document["steps"][0].keys()


def test_a_failed_run_is_one_json_document(run):
    with ollama(respond(500, b'{"error": "out of luck"}')) as server:
        outcome = run("--json", "-q", "-p", "answer", *node(server), "hello")

    assert outcome.code == 1
    assert json.loads(outcome.out)["status"] == "failed"
    assert "out of luck" in json.loads(outcome.out)["error"]["message"]
    assert "out of luck" in outcome.err


def test_usage_errors_leave_stdout_empty_with_json(run):
    for arguments in (
        ["--json", "-i", "x", "q"],
        ["--json", "-p", "nope", *SCRIPTED, "q"],
        ["--json", "--set", "modle=x", "q"],
    ):
        outcome = run(*arguments)

        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("error: ")


def test_the_plan_is_printed_and_no_model_is_called(run):
    with ollama(respond(500)) as server:
        outcome = run("--plan", *node(server), "hello")
        document = run("--plan", "--json", *node(server), "-i", "rounds=0", "hello")

    assert [request.path for request in server.requests if request.path == "/api/chat"] == []
    assert (outcome.code, outcome.err) == (0, "")
    assert "task distribution on, distributed inference off" in outcome.out
    assert "plan*" in outcome.out
    plan = json.loads(document.out)
    assert plan["inputs"]["rounds"] == 0
    assert plan["critical_path"][0] == "plan"


def test_inputs_reach_the_pipeline(run, tmp_path: Path):
    (tmp_path / "greet.yaml").write_text(
        "version: 1\nname: greet\ninputs: {whom: {type: string, required: true}}\n"
        'steps: {say: {agent: editor, prompt: "Hello {{ inputs.whom }}"}}\nresult: "{{ steps.say }}"\n'
    )

    assert run("-q", "-p", "greet.yaml", *SCRIPTED, "-i", "whom=old", "-i", "whom=world=1").out == "Hello world=1\n"
    missing = run("run", "-p", "greet.yaml", *SCRIPTED)
    assert missing.code == 2
    assert "whom" in missing.err


def test_a_mistyped_command_is_refused_before_any_call(run):
    outcome = run(*ECHO, "agnets", "list")

    assert (outcome.code, outcome.out) == (2, "")
    assert "'agnets list' is not a command; did you mean" in outcome.err
    assert "agents list?" in outcome.err
    assert "to ask it as a question:" in outcome.err
    assert run("-q", *ECHO, "--", "agnets", "list").out == "agnets list\n"
    assert run("-q", *ECHO, "run", "agnets", "list").out == "agnets list\n"


def test_a_question_that_is_given_twice_is_refused(run):
    outcome = run("-q", *ECHO, "-i", "query=a", "b")

    assert (outcome.code, outcome.out) == (2, "")
    assert "the question is given twice: 'b', and 'a' as the input 'query'" in outcome.err
    assert run("-q", *ECHO, "-i", "query=a", "a").out == "a\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("--bogus", None), ("--verbos", "--verbose"), ("--jsn", "--json"), ("--verison", "--version")]
)
def test_an_unknown_option_is_compared_without_its_dashes(run, typed: str, meant: str | None):
    (line, *_) = run(*ECHO, typed, "hello").err.splitlines()

    assert line == f"error: unknown option {typed}" + (f"; did you mean {meant}?" if meant else "")


@pytest.mark.parametrize("key", ["pipeline", "backend"])
@pytest.mark.parametrize("nothing", ["null", "none", "NULL"])
def test_a_setting_that_names_something_may_be_set_to_nothing(run, tmp_path: Path, key: str, nothing: str):
    file = tmp_path / "settings.json"

    assert run("config", "set", key, nothing, "--config", str(file)).code == 0
    assert json.loads(file.read_text()) == {key: None}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pipeline", "reserch", "did you mean 'research'?"),
        ("backend", "olama", "did you mean 'ollama'?"),
        ("embedded_model", "nosuch.gguf", "embedded_model: cannot read nosuch.gguf: No such file or directory"),
        ("agent_models.criticc", "tiny", "did you mean 'critic'?"),
        ("zzz", "1", "'synaptic config show' lists all that there are"),
    ],
)
def test_a_setting_that_names_what_there_is_not_is_never_kept(run, tmp_path: Path, key: str, value: str, said: str):
    file = tmp_path / "settings.json"
    outcome = run("config", "set", key, value, "--config", str(file))

    assert outcome.code == 2
    assert said in outcome.err
    assert not file.exists()


def test_no_question_at_all_is_an_error(run):
    outcome = run(*ECHO, "run")

    assert outcome.code == 2
    assert "needs the input 'query'" in outcome.err


def test_quiet_and_verbose_exclude_each_other(run):
    assert run("-q", "-v", *ECHO, "hello").code == 2


def test_verbose_prints_the_row_of_the_routing_table(run):
    assert "route: scripted/scripted (the setting 'backend' names it)" in run("-v", *ECHO, "hello").err


def test_older_names_in_the_settings_are_told_where_settings_are_shown_and_not_at_every_run(run, tmp_path: Path):
    file = tmp_path / "settings.json"
    file.write_text('{"model_sharding_enabled": false}')

    assert "notice: " not in run("--config", str(file), *ECHO, "hello").err
    assert "notice: " not in run("--config", str(file), "pipelines", "show", "answer").err
    assert "notice: " in run("--config", str(file), "config", "show").err


def test_every_mistake_is_a_line_of_its_own(run):
    lines = run("--set", "modle=x", "--set", "retries=99", "hello").err.splitlines()

    assert len([line for line in lines if line.startswith("error: --set: ")]) == 2


def test_a_bug_is_a_sentence_and_a_traceback_only_on_request(capfd: pytest.CaptureFixture[str]):
    error = ZeroDivisionError("division\x1b by zero")

    show_bug(error, verbose=False)
    assert capfd.readouterr().err.splitlines() == [
        "error: this is a bug: ZeroDivisionError: division by zero",
        "hint: run it again with -v for the traceback, and please report it",
    ]
    show_bug(error, verbose=True)
    assert "Traceback" in capfd.readouterr().err or error.__traceback__ is None


def test_a_bug_ends_with_exit_code_1(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SUBCOMMANDS, "agents", ("json:no_such_command", ""))

    outcome = run("agents", "list")

    assert outcome.code == 1
    assert outcome.err.startswith("error: this is a bug: AttributeError: ")
    assert outcome.out == ""


# -- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["-f", "r1.txt", "r2.txt", "Summarise"], "in quotes"),
        (["Summarise", "-qf", "r1.txt", "r2.txt"], "in quotes"),
        (["run", "--file", "r1.txt", "r2.txt", "Summarise"], "in quotes"),
        (["2.yaml", "Porto"], "did you mean -p 2.yaml?"),
        (["run", "-m", "x", "2.yaml", "Porto"], "did you mean -p 2.yaml?"),
        (["-f", "r1.txt", "what", "of", "r2.txt"], None),
        (["-f", "r1.txt", "r2.txt is what?"], None),
        (["-f", "r1.txt", "--", "r2.txt", "is", "what"], None),
        (["-f", "r1.txt", "folder", "is", "what"], None),
        (["-f", "*.txt", "r2.txt", "is", "what"], None),
        (["-f", "r1.txt", "-f", "r2.txt", "Summarise"], None),
        (["what", "is", "2.yaml"], None),
        (["-p", "3.yaml", "2.yaml", "is", "what"], None),
        (["--", "2.yaml", "Porto"], None),
        (["4.yaml", "Porto"], None),
        (["agents", "show", "2.yaml"], None),
    ],
)
def test_files_that_are_no_words_of_the_question(tmp_path: Path, monkeypatch, words: list[str], advice: str | None):
    monkeypatch.chdir(tmp_path)
    for name in ("r1.txt", "r2.txt", "2.yaml", "3.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    if advice is None:
        assert rewrite(build_root(), words, interactive=True)[-1] == words[-1]
        return
    with pytest.raises(UsageError) as caught:
        rewrite(build_root(), words, interactive=True)
    assert advice in f"{caught.value.message}; {caught.value.hint}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nodes of the world", "no such command 'of'\nhint: see pytest nodes --help; to ask it: pytest -- nodes of …"),
        ("config get", "no such command 'get'; did you mean pytest config show?"),
        (
            "batch -p w.yaml q.jsonl",
            "unknown option -p\nhint: write pytest batch NAME|FILE FILE.jsonl|FILE.parquet -o PATH; see ",
        ),
        ("batch w.yaml q.jsonl", "missing option '-o' / '--output'\nhint: write pytest batch NAME|FILE FILE.jsonl|"),
        ("nodes add", "missing argument 'URL'\nhint: write pytest nodes add URL; see pytest nodes add --help"),
        ("serve --prot 3", "unknown option --prot; did you mean --port?\nhint: see pytest serve --help"),
        ("pipelines run w.yaml", "no such command 'run'; to run one: pytest -p NAME|FILE"),
        ("models fetch", "no such command 'fetch'; did you mean pytest models pull?"),
        ("agents lst", "no such command 'lst'; did you mean pytest agents list?"),
        ("config show temprature", "unknown setting 'temprature'\nhint: did you mean 'temperature'?"),
        ("config set temperature", "temperature: it needs a value, too"),
        ("-f - hello", "-f takes no -\nhint: leave it out: what is piped in is read without -f"),
    ],
)
def test_what_was_meant_is_said(run, words: str, told: str):
    outcome = run(*words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err.replace(program_name(sys.argv[0]), "pytest")


def test_a_setting_that_another_source_goes_before_is_said_to_have_no_effect(run, own_home: Path, tmp_path: Path):
    (tmp_path / "synapticllamas.json").write_text('{"temperature": 0.2}')
    done = run("config", "set", "temperature=0.4")
    plain = run("config", "set", "max_tokens", "70")

    assert (done.code, plain.code) == (0, 0)
    assert "temperature comes from" in done.err and "goes before" in done.err
    assert "goes before" not in plain.err
    assert json.loads((own_home / ".synapticllamas.json").read_text()) == {"temperature": 0.4, "max_tokens": 70}
    assert run("config", "show", "max_tokens").out.splitlines()[1].split()[-1] == "70"


@pytest.mark.parametrize(
    ("arguments", "interactive", "expected"),
    [
        (["hello"], False, ["run", "hello"]),
        (["--", "hello"], True, ["run", "--", "hello"]),
        (["-q", "hello"], True, ["run", "-q", "hello"]),
        (["hello", "there"], True, ["run", "hello", "there"]),
        (["hello there"], True, ["run", "hello there"]),
        (["why?"], True, ["run", "why?"]),
        (["爱是什么"], True, ["run", "爱是什么"]),
        (["agents list"], True, ["run", "agents list"]),
        (["agents", "list"], True, ["agents", "list"]),
        (["-m", "agents", "hello"], True, ["run", "-m", "agents", "hello"]),
        (["-magents", "agents"], True, ["-magents", "agents"]),
        (["-qm", "x", "agents"], True, ["-qm", "x", "agents"]),
        (["--set=a=b", "agents"], True, ["--set=a=b", "agents"]),
        (["--set", "agents"], True, ["chat", "--set", "agents"]),
        (["--", "agents"], True, ["run", "--", "agents"]),
        (["-"], True, ["run", "-"]),
        ([], True, ["chat"]),
        ([], False, ["run"]),
        (["-p", "answer"], True, ["chat", "-p", "answer"]),
        (["-p", "answer"], False, ["run", "-p", "answer"]),
        (["--plan"], True, ["run", "--plan"]),
        (["-i", "a=b"], True, ["run", "-i", "a=b"]),
        (["--help"], True, ["--help"]),
        (["-p", "x", "--version"], False, ["-p", "x", "--version"]),
    ],
)
def test_which_words_are_a_question(arguments: list[str], interactive: bool, expected: list[str]):  # noqa: FBT001
    assert rewrite(build_root(), arguments, interactive=interactive) == expected


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("test", "'test' is one word, and no command; did you mean pytest pipelines test?"),
        ("Export", "'Export' is one word, and no command; did you mean pytest runs export or pytest sessions export?"),
        ("dry-run", "'dry-run' is one word, and no command"),
        ("photosynthesis", "'photosynthesis' is one word, and no command"),
        ("notes.txt", "notes.txt is a file, and no question"),
        ("minutes", "minutes is a file, and no question"),
    ],
)
def test_one_word_that_a_person_types_is_not_asked(tmp_path: Path, monkeypatch, word: str, told: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    for name in ("notes.txt", "minutes"):
        (tmp_path / name).touch()
    with pytest.raises((NearlyACommand, UsageError)) as caught:
        rewrite(build_root(), [word], interactive=True)
    assert caught.value.message == told
    file = (tmp_path / word).exists()
    assert caught.value.hint == (
        f'to ask about it: pytest -f {word} "…"' if file else f"to ask it as a question: pytest -- {word}"
    )


def test_the_name_of_the_program():
    assert program_name("/x/main.py") == "python main.py"
    assert program_name("/usr/bin/synaptic") == "synaptic"


@pytest.mark.parametrize(
    ("arguments", "piped", "answer"),
    [
        (["a", "b"], "", "a b"),
        ([], " text\n", "text"),
        (["a"], "text\n", "a\n\ntext"),
        (["-f", "in.txt", "a"], "", "a\n\nin.txt:\n\nfile"),
        (["-f", "in.txt"], "", "in.txt:\n\nfile"),
        (["-f", "*.txt", "a"], "text", "a\n\ntext\n\nin.txt:\n\nfile"),
        (["-i", "query=@in.txt"], "", "file"),
        (["-i", "query=@@in.txt"], "", "@in.txt"),
        (["-i", "query=@in.txt"], "text", "file\n\ntext"),
    ],
)
def test_a_question_is_composed(tmp_path: Path, arguments: list[str], piped: str, answer: str):
    (tmp_path / "in.txt").write_text("file\n")
    outcome = run_here(*ECHO, "-q", *arguments, stdin=piped, cwd=tmp_path)

    assert (outcome.code, outcome.out) == (0, f"{answer}\n")


@pytest.mark.parametrize("piped", ["", "\n"])
def test_nothing_is_no_question(piped: str):
    assert run_here(*ECHO, stdin=piped).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-f", "ni.txt", "a"], "-f: names ni.txt, which is not there; did you mean 'in.txt'?"),
        (
            ["-f", "link.txt", "a"],
            "-f: names link.txt, which is not there; it is a link to nowhere, which is not there",
        ),
        (["-f", "*.md", "a"], "-f: names *.md, which matches no file"),
        (["-f", "blank.txt", "a"], "-f: names blank.txt, which is empty; name a file with text in it"),
        (["-f", "in.txt", "-f", "blank.txt", "a"], "-f: names blank.txt, which is empty"),
        (["-f", "bl*.txt", "a"], "-f: names blank.txt, which is empty"),
        (["-p", "map_reduce", "-i", "files=bl*.txt", "a"], "input 'files' names blank.txt, which is empty"),
        (["-i", "query=@ni.txt"], "input 'query' names ni.txt, which is not there; did you mean 'in.txt'?"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, arguments: list[str], said: str):
    (tmp_path / "in.txt").write_text("file\n")
    (tmp_path / "link.txt").symlink_to("nowhere")
    (tmp_path / "blank.txt").write_text("\n")
    outcome = run_here(*ECHO, *arguments, cwd=tmp_path)

    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


def test_a_byte_order_mark_is_no_part_of_a_text():
    assert decode("\ufeffhällo".encode()) == "hällo"


def test_piped_bytes_that_are_no_text_are_refused():
    done = subprocess.run(
        [sys.executable, MAIN, *ECHO], input=b"a\n\xff\xfe", capture_output=True, timeout=PATIENCE, check=False
    )

    assert done.returncode == 2
    assert b"standard input is not UTF-8 text (line 2)" in done.stderr


def test_a_file_of_many_may_be_empty(tmp_path: Path):
    (tmp_path / "in.txt").write_text("file\n")
    (tmp_path / "blank.txt").touch()

    assert run_here(*ECHO, "-q", "-f", "*.txt", "a", cwd=tmp_path).out.startswith("a\n\n")


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_pipe_beside_a_question_is_mentioned(text: str):
    said = "hint: standard input was empty: the question is asked alone\n"

    assert run_process(*ECHO, "hello", stdin=text).err.startswith(said)
    assert run_process(*ECHO, "-q", "hello", stdin=text) == Outcome(0, "hello\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["caf\udce9"], "error: the question is not UTF-8 text\nhint: write it in UTF-8"),
        (["-i", "query=caf\udce9"], "error: -i: the value of query is not UTF-8 text; write it in UTF-8"),
        (["-i", "qu\udce9=a"], "error: -i: the value of qu\N{REPLACEMENT CHARACTER} is not UTF-8 text"),
    ],
)
def test_a_question_in_another_encoding_is_refused(words: list[str], said: str):
    """What a terminal typed that is set to Latin-1 would reach the model with letters missing."""
    outcome = run_here(*ECHO, *words)

    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


@pytest.mark.parametrize(
    ("encoding", "out"), [("ascii", b"gr?n\n"), ("latin-1", b"gr\xfcn\n"), ("utf-8", "grün\n".encode())]
)
def test_letters_that_standard_output_lacks_are_mentioned(encoding: str, out: bytes):
    done = subprocess.run(
        [sys.executable, MAIN, *ECHO, "-q", "grün"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )

    assert done.stdout == out
    assert (b"hint: standard output is ascii, and '?' stands for" in done.stderr) is (encoding == "ascii")


def test_a_pipe_that_never_ends_is_refused(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(MAX_PIPED_BYTES + 1)
    with big.open(encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        outcome = run(*ECHO)

    assert outcome.code == 2
    assert "longer than 4 MiB" in outcome.err


def test_a_silent_pipe_is_waited_for_and_says_so():
    process = subprocess.Popen(
        [sys.executable, MAIN, *ECHO, "hello"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "hint: waiting for standard input (Ctrl-D ends it)\n"
    out, _ = process.communicate("late", timeout=PATIENCE)

    assert out == "hello\n\nlate\n"


def test_an_interrupt_while_the_question_is_typed_shows_no_traceback():
    process = subprocess.Popen(
        [sys.executable, MAIN, *ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "waiting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, out, err.strip()) == (130, "", "interrupted")


def test_a_closed_standard_input_is_no_question(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)

    assert run(*ECHO, "-q", "hello").out == "hello\n"
    assert run(*ECHO).code == 2


# -- subcommands -------------------------------------------------------------------------------------------------


def test_the_help_names_every_command_and_every_command_has_help(run):
    text = run("--help").out

    for name in SUBCOMMANDS:
        assert f"  {name} " in text
        command = run(name, "--help")
        assert command.code == 0
        assert "Usage: " in command.out
    assert "Exit codes: 0 answered" in text


def test_every_option_has_its_help():
    for parameter in build_root().params:
        assert isinstance(parameter, click.Option)
        assert parameter.help
        assert parameter.help.endswith(".")


def test_the_version(run):
    assert run("--version").out.startswith("synapticllamas ")


def test_options_of_questions_are_refused_before_other_commands(run):
    outcome = run("--plan", "agents", "list")

    assert outcome.code == 2
    assert "--plan is for questions" in outcome.err
    assert run("-i", "a=b", "agents", "list").code == 2
    assert run("--json", "chat").code == 2


def test_a_group_without_a_command_shows_its_help(run):
    outcome = run("agents")

    assert outcome.code == 2
    assert "list" in outcome.err + outcome.out


def test_an_unknown_command_of_a_group(run):
    outcome = run("agents", "lst")

    assert outcome.code == 2
    assert "lst" in outcome.err


def test_pipelines(run, tmp_path: Path):
    listing = run("pipelines", "list").out.splitlines()
    data = json.loads(run("pipelines", "list", "--json").out)
    shown = run("pipelines", "show", "answer").out

    names = [pipeline["name"] for pipeline in data]
    assert names == sorted(names) and {"answer", "parallel", "research", "debate", "map_reduce"} < set(names)
    assert [line.split()[0] for line in listing if not line.startswith(" ")] == ["NAME", *names]
    assert data[names.index("research")]["inputs"]["rounds"]["default"] == 1
    (tmp_path / "mine.yaml").write_text(shown)
    assert (
        run("pipelines", "validate", "mine.yaml", "research").out == "mine.yaml: ok (1 step)\nresearch: ok (5 steps)\n"
    )
    assert json.loads(run("--json", "pipelines", "show", "mine.yaml").out)["path"] == "mine.yaml"


def test_mistakes_in_pipelines_are_all_named(run, tmp_path: Path):
    (tmp_path / "bad.yaml").write_text("version: 1\nname: bad\nsteps: {a: {agent: edtor, prompt: x}}\nresult: y\n")

    outcome = run("pipelines", "validate", "bad.yaml", "nope", "answer")

    assert (outcome.code, outcome.out) == (2, "answer: ok (1 step)\n")
    assert "bad.yaml:3" in outcome.err
    assert "'editor'" in outcome.err
    assert "there is no pipeline 'nope'" in outcome.err
    assert "is an agent" not in outcome.err
    assert "hint: editor is an agent: a pipeline's step names it" in run("-p", "editor", "hello").err
    assert "hint: research is a pipeline" in run("agents", "show", "research").err


@pytest.mark.parametrize("file", ["weekend.yaml", "weekend.yml"])
def test_a_pipeline_that_is_named_without_the_ending_of_its_file(run, tmp_path: Path, file: str):
    (tmp_path / file).write_text(ASKING)

    for words in (("-p", "weekend", *SCRIPTED, "hello"), ("pipelines", "show", "weekend")):
        outcome = run(*words)
        assert outcome.code == 2
        assert outcome.err.startswith("error: there is no pipeline 'weekend'\n")
        assert outcome.err.endswith(f"hint: to use the file that is here, write {file}\n")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("notes.md", "'notes.md' is a file, and no pipeline\nhint: a pipeline's file ends in .yaml"),
        ("folder", "'folder' is a folder, and no pipeline"),
        ("word " * 1000, f"there is no pipeline '{('word ' * 1000)[:79]}…'"),
    ],
)
def test_what_is_no_pipeline_is_called_what_it_is(run, tmp_path: Path, name: str, said: str):
    (tmp_path / "notes.md").write_text("text")
    (tmp_path / "folder").mkdir()

    for words in (("-p", name, *SCRIPTED, "hello"), ("batch", name, "in.jsonl", "-o", "out.jsonl", *SCRIPTED)):
        outcome = run(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"error: {said}")


LONG = "what was decided? " * 300


@pytest.mark.parametrize(
    "words",
    [
        ("-f", LONG, "hello", *SCRIPTED),
        ("-f", "one\ntwo", "hello", *SCRIPTED),
        ("-i", f"query=@{LONG}", *SCRIPTED),
        ("--tools", LONG, "hello", *SCRIPTED),
        ("agents", "show", LONG),
        ("pipelines", "validate", LONG),
        ("pipelines", "test", LONG),
        ("trust", LONG),
        ("runs", "show", LONG),
        ("--config", LONG, "config", "show"),
        ("batch", "answer", LONG, "-o", "out.jsonl", *SCRIPTED),
        ("batch", "answer", "in.jsonl", "-o", LONG, *SCRIPTED),
    ],
)
def test_a_text_in_the_place_of_a_name_is_no_bug(run, tmp_path: Path, words: tuple[str, ...]):
    (tmp_path / "in.jsonl").write_text('"hello"\n')
    outcome = run(*words)

    assert outcome.code in {1, 2}
    assert "this is a bug" not in outcome.err


@pytest.mark.parametrize(("words", "said"), [("keep_alive -1", ""), ("max_tokens -5", "max_tokens must be at least 1")])
def test_a_value_below_zero_is_no_option(run, own_home: Path, words: str, said: str):
    outcome = run("config", "set", *words.split())

    assert outcome.code == (2 if said else 0), outcome.err
    assert said in outcome.err
    if not said:
        assert json.loads((own_home / ".synapticllamas.json").read_text()) == {"keep_alive": "-1"}


@pytest.mark.parametrize(
    ("inputs", "command"),
    [
        ("", "run"),
        ("inputs: {city: {type: string, default: Bern}}", "run"),
        ("inputs: {query: {type: string, required: true}}", "chat"),
        ("inputs: {query: {type: string, default: Which?}}", "chat"),
        ("inputs: [", "run"),
    ],
)
def test_the_prompt_opens_for_a_pipeline_that_takes_a_question(run, tmp_path: Path, inputs: str, command: str):
    file = tmp_path / "weekend.yaml"
    file.write_text(f"{ASKING}{inputs}\n")

    for words in (["-p", str(file)], [f"-qp{file}"], [f"--pipeline={file}", "--set", "retries=0"]):
        assert rewrite(build_root(), words, interactive=True) == [command, *words]
    assert rewrite(build_root(), ["-p", "nosuch.yaml"], interactive=True)[0] == "run"


@pytest.mark.parametrize("name", [name for name in SUBCOMMANDS if isinstance(command(name), click.Group)])
def test_a_group_alone_shows_its_help(run, name: str):
    outcome = run(name)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == run(name, "--help").out
    assert outcome.err.startswith("Usage: ")


def test_agents(run, tmp_path: Path):
    shown = run("agents", "show", "editor").out
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "editor.md").write_text(shown)
    trust()

    listing = run("agents", "list").out
    data = {agent["name"]: agent for agent in json.loads(run("agents", "list", "--json").out)}

    (line,) = [line for line in listing.splitlines() if line.startswith("editor")]
    assert "project, overrides " in line
    assert data["editor"]["origin"] == "project"
    assert data["critic"]["origin"] == "shipped"
    assert json.loads(run("agents", "show", "planner", "--json").out)["output"]["type"] == "object"
    unknown = run("agents", "show", "edtor")
    assert unknown.code == 2
    assert "did you mean 'editor'?" in unknown.err


def test_models_list(run):
    with ollama(respond(500)) as server:
        outcome = run("models", "list", *node(server))
        data = json.loads(run("models", "list", "--json", *node(server)).out)

    assert outcome.out.splitlines()[1].split()[:2] == ["tiny:latest*", "1"]
    assert "questions go to ollama/tiny:latest@127.0.0.1" in outcome.err
    assert data["route"]["backend"] == "ollama"
    assert data["models"][0]["name"] == "tiny:latest"


def test_models_show(run):
    with ollama(respond(500)) as server:
        outcome = run("models", "show", "tiny", *node(server))
        data = json.loads(run("models", "show", "TINY:latest", "--json", *node(server)).out)
        missing = run("models", "show", "tinny", *node(server))

    facts = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert (facts["model"], facts["size"], facts["parameters"]) == ("tiny:latest", "1 kB", "not told")
    assert facts["questions"].startswith("go to it: ")
    assert (data["name"], data["size_bytes"], data["asked"], data["doubt"]) == ("tiny:latest", 1000, True, None)
    assert missing.code == 3
    assert "there is no model 'tinny' at ollama@" in missing.err and "did you mean 'tiny:latest'?" in missing.err


def pull_reply(*lines: Mapping[str, object]) -> Script:
    return stream([json.dumps(line).encode() + b"\n" for line in lines])


def test_models_pull_has_ollama_fetch_a_model(run):
    layer = {"status": "pulling 0123", "digest": "sha256:0123456789abcdef", "total": 2_000_000}
    lines = (
        {"status": "pulling manifest"},
        layer,
        {**layer, "completed": 1_500_000},
        {**layer, "completed": 2_000_000},
        {"status": "pulling b", "digest": "sha256:b", "total": 100, "completed": 50},
        {"status": "success"},
    )
    with ollama(respond(500), pull=pull_reply(*lines)) as server:
        outcome = run("models", "pull", *node(server), "llama3.2")

    assert (outcome.code, outcome.out) == (0, f"llama3.2 is on {server.url}\n")
    assert server.requests[-1].json == {"model": "llama3.2", "stream": True}
    assert outcome.err.splitlines() == [f"pulling llama3.2 (0123456789ab): {share} % of 2 MB" for share in (0, 75, 100)]


def test_models_pull_is_done_on_every_node_or_on_the_one_that_is_named(run):
    done, full = pull_reply({"status": "success"}), pull_reply({"error": "no space left"})
    with (
        ollama(respond(500), pull=done) as desk,
        ollama(respond(500), pull=full) as attic,
        ollama(respond(500), pull=done) as den,
    ):
        nodes = [{"url": server.url, "name": name} for server, name in ((desk, "desk"), (attic, "attic"), (den, "den"))]
        at = ("--set", f"nodes={json.dumps(nodes)}")
        everywhere = run("models", "pull", *at, "m")
        on_den = run("models", "pull", *at, "--node", "den", "m")
        first = run("models", "pull", *at, "--set", "task_distribution_enabled=false", "m")
        unknown = run("models", "pull", *at, "--node", "dem", "m")
        asked = [len(server.requests) for server in (desk, attic, den)]

    assert (everywhere.code, everywhere.out) == (1, f"m is on {desk.url}\nm is on {den.url}\n")
    assert "no space left" in everywhere.err
    assert (on_den.code, on_den.out) == (0, f"m is on {den.url}\n")
    assert (first.code, first.out) == (0, f"m is on {desk.url}\n")
    assert (unknown.code, unknown.err.splitlines()[-1]) == (2, "hint: did you mean den?")
    assert asked == [2, 1, 2]


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ([{"error": "pull model manifest: file does not exist"}], 3, "there is no model 'nope' to pull"),
        ([{"error": "no space left"}], 1, "could not pull 'nope': no space left"),
        ([{"status": "pulling manifest"}], 1, "ended the transfer before it was complete"),
    ],
)
def test_models_pull_that_fails(run, lines: list[Mapping[str, object]], code: int, message: str):
    with ollama(respond(500), pull=pull_reply(*lines)) as server:
        outcome = run("models", "pull", *node(server), "nope")

    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err


@pytest.mark.real_model
def test_models_pull_without_a_name_fetches_the_embedded_model(run):
    outcome = run("models", "pull")

    assert outcome.code == 0
    assert Path(outcome.out.strip()).is_file()


def test_config_is_set_shown_checked_and_unset(run, own_home: Path):
    file = own_home / ".synapticllamas.json"

    assert run("config", "path").out == f"{file}\n"
    assert run("config", "validate").out == "ok (all defaults)\n"
    assert run("config", "set", "model", "llama3.1:8b").code == 0
    assert json.loads(file.read_text()) == {"model": "llama3.1:8b"}
    shown = json.loads(run("config", "show", "--json", "--set", "retries=5").out)
    assert shown["model"]["value"] == "llama3.1:8b"
    assert str(file) in shown["model"]["origin"]
    assert shown["retries"] == {"value": 5, "origin": "--set"}
    assert [line.split()[0] for line in run("config", "show").out.splitlines()][:2] == ["SETTING", "model"]
    assert run("config", "validate").out == "ok (1 setting differs from the default)\n"
    assert "is removed" in run("config", "unset", "model").err
    assert "was not set" in run("config", "unset", "model").err


def test_wrong_settings_are_not_written(run, own_home: Path):
    outcome = run("config", "set", "retries", "many")

    assert outcome.code == 2
    assert not (own_home / ".synapticllamas.json").exists()


def test_config_migrate_reports(run, own_home: Path):
    file = own_home / ".synapticllamas.json"
    file.write_text('{"model_sharding_enabled": true}')

    outcome = run("config", "migrate")

    assert "backup" in outcome.out
    assert json.loads(file.read_text()) == {"distributed_inference_enabled": True}


def test_the_doctor_finds_a_server(run):
    with ollama(respond(500)) as server:
        outcome = run("doctor", *node(server))
        empty = run("doctor", "--json", *node(server))
        lacking = run("doctor", *node(server), "--set", "model=none:7b")

    assert outcome.code == 0
    assert f"ok      ollama: {server.url} has tiny:latest" in outcome.out
    assert lacking.code == 3
    assert f"missing ollama: {server.url} has tiny:latest, but not none:7b" in lacking.out
    assert run("doctor").code == 0  # without a node in the settings the embedded model answers
    assert {finding["name"] for finding in json.loads(empty.out)} >= {
        "python",
        "settings",
        "agents",
        "ollama",
        "engine",
    }


def test_the_doctor_says_what_to_fix(run, own_home: Path, tmp_path: Path):
    (own_home / ".synapticllamas.json").write_text('{"modle": 1}')
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "broken.md").write_text("no front matter and no prompt\n---\n")

    outcome = run("doctor")

    assert outcome.code == 2
    assert "problem settings: " in outcome.out
    assert "did you mean 'model'?" in outcome.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "--port", "abc"], "error: invalid value for '--port': 'abc' is no whole number\n"),
        (["runs", "list", "-n", "x"], "error: invalid value for '-n' / '--limit': 'x' is no whole number\n"),
        (["nodes", "add", "a", "--memory-gib", "x"], "error: invalid value for '--memory-gib': 'x' is no number\n"),
        (["completion"], "error: missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish\n"),
    ],
)
def test_wrong_usage_is_one_line_in_plain_words(run, words: list[str], said: str):
    outcome = run(*words)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(said)


def test_settings_that_lead_nowhere_are_found_before_a_question_is_asked(run, own_home: Path):
    file = own_home / ".synapticllamas.json"
    file.write_text('{"pipeline": "reserch",\n"backend": "olama",\n"agent_models": {"editr": "a"}}')
    checked, examined = run("config", "validate"), run("doctor")

    assert checked.code == examined.code == 2
    for line, words in ((1, "did you mean 'research'"), (2, "did you mean 'ollama'"), (3, "did you mean 'editor'")):
        assert any(f"{file}:{line}" in said and words in said for said in checked.err.splitlines())
        assert words in examined.out


def test_files_and_secrets_that_settings_name_are_looked_for(run, own_home: Path, monkeypatch):
    monkeypatch.delenv("LAB_TOKEN", raising=False)
    model = own_home / "small.gguf"
    nodes = [{"url": NOTHING_THERE, "token_env": "LAB_TOKEN"}]
    file = own_home / ".synapticllamas.json"
    file.write_text(json.dumps({"embedded_model": str(model), "nodes": nodes}))
    missing = run("config", "validate")
    model.write_text("no model")
    wrong = run("config", "validate")
    model.write_bytes(b"GGUF")
    monkeypatch.setenv("LAB_TOKEN", "x")
    right = run("config", "validate")

    token = f"{file}:1: nodes: node {NOTHING_THERE}: the environment variable LAB_TOKEN is not set; export LAB_TOKEN"
    assert missing.code == wrong.code == 2
    assert f"{file}:1: embedded_model: cannot read {model}: No such file" in missing.err and token in missing.err
    assert f"{file}:1: embedded_model: {model} is not a GGUF file" in wrong.err and token in wrong.err
    assert (right.code, right.err) == (0, "")


@pytest.mark.parametrize("words", [("-p", "answer", "--plan", "Why so?"), ("nodes", "list"), ("agents", "list")])
def test_a_working_directory_that_was_removed_stops_nothing(run, tmp_path: Path, monkeypatch, words: tuple[str, ...]):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    outcome = run(*words)
    monkeypatch.chdir(tmp_path)

    assert outcome.code == 0, outcome.err


def test_a_misspelt_input_of_the_settings_is_said(run, own_home: Path):
    file = own_home / ".synapticllamas.json"
    file.write_text('{"pipeline_inputs": {"threshhold": 0.8, "rounds": 1, "colour": "red"}}')
    told = "pipeline_inputs.threshhold has no effect: pipeline 'research' has no such input; did you mean 'threshold'?"

    planned, checked = run("-p", "research", "--plan", "Why so?"), run("config", "validate")
    assert planned.code == checked.code == 0
    assert told in " ".join(planned.err.split()) and told in " ".join(checked.err.split())
    assert planned.err.count("pipeline_inputs") == checked.err.count("pipeline_inputs") == 1
    assert "pipeline_inputs" not in run("-p", "answer", "--plan", "Why so?").err


def test_the_doctor_checks_nodes_and_the_users_model(run, tmp_path: Path):
    with ollama(respond(500), tags=json_reply({"models": []})) as server:
        outcome = run("doctor", *node(server), "--set", f"embedded_model={tmp_path}/none.gguf")
    alone = run("doctor", "--set", f'nodes=["{NOTHING_THERE}"]')

    assert "answers, but has no model" in outcome.out
    assert "fix: ollama pull llama3.2" in outcome.out
    assert "problem model: " in outcome.out
    assert outcome.code == 2
    assert alone.code == 3  # where a node is named, a call never ends at the embedded model
    assert "missing questions: nothing can serve the call" in alone.out
    unknown = run("doctor", "--set", "model=none:7b")
    assert unknown.code == 3
    assert "missing questions: nothing can serve none:7b (" in unknown.out  # no other line speaks of the model
    assert "fix: start Ollama (ollama serve), or correct the address" in alone.out


@pytest.mark.parametrize(
    ("answer", "words", "cure"),
    [
        (respond(401), "answered 401: it asks for credentials", "give the node token_env, token_file, or username"),
        (respond(403), "answered 403: it refuses access", "OLLAMA_HOST=0.0.0.0"),
        (respond(407), "answered 407: a proxy asks for credentials", "without a proxy"),
        (html(), "sent a web page instead of a JSON object: 'It works!'", "the address of the Ollama itself"),
        (respond(301, headers={"location": "https://a.test/login"}), "it sends calls to a login", "with a browser"),
    ],
)
def test_every_command_says_the_same_of_a_node(run, answer, words: str, cure: str):
    with ollama(answer, tags=answer, version=answer) as server:
        look, doctor, question = (
            run("nodes", "check", *node(server)),
            run("doctor", *node(server)),
            run(*node(server), "hi"),
        )
    for text in (look.out, doctor.out, question.err):
        assert words in text
        assert cure in text
    assert (look.code, question.code) == (3, 3)


def test_the_doctor_without_the_model(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert "fix: synaptic models pull" in run("doctor").out


def test_a_damaged_model_is_told_by_every_command_that_looks_at_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run("models", "verify", "-q").code == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = ModelStore()
    store.directory.mkdir(parents=True)
    store.path.write_bytes(bytes(store.artifact.file_bytes))

    verified, listed = run("models", "verify"), json.loads(run("models", "verify", "--json").out)
    assert (verified.code, listed[0]["status"]) == (1, "damaged")
    assert listed[0]["expected"] == store.artifact.sha256 != listed[0]["sha256"]
    deep = run("doctor", "--deep")
    assert f"missing content: {listed[0]['name']}: its SHA-256 begins with" in deep.out
    for outcome in (verified, run("doctor"), deep, run("hello")):
        text = outcome.out + outcome.err
        assert f"SHA-256 begins with {listed[0]['sha256'][:12]}" in text
        assert "synaptic models pull" in text
        assert outcome.code == (1 if outcome is verified else 3)


def test_a_narrow_table_breaks_words_of_its_last_column_only():
    rows = [["  a-long-name", "left out on error", "http://10.0.0.2:11434"]]

    assert table_lines(["step", "notes", "needs"], rows, 36) == [
        "STEP           NOTES    NEEDS",
        "  a-long-name  left     http://10.0.",
        "               out on   0.2:11434",
        "               error",
    ]
    assert table_lines([], rows) == ["  a-long-name  left out on error  http://10.0.0.2:11434"]


@pytest.mark.parametrize("width", range(62, 90, 3))
def test_no_line_of_a_table_is_longer_than_the_terminal_where_words_can_be_broken(width: int):
    """Also where the widest column but one has a word that is longer than the room for the last."""
    headers = ["", "node", "expected", "wait", "load", "run", "cached", "why"]
    rows = [["*", "127.0.0.1:21902", "4.0 s", "0", "4.0 s", "11 ms", "", "another one would be done earlier"]]

    assert max(map(len, table_lines(headers, rows, width))) <= max(width, 66)


def test_a_table_wraps_its_last_column_only():
    rows = [["a", "one two three four five six seven"], ["bb", ""]]

    assert table_lines(["x", "y"], rows, 26) == [
        "X   Y",
        "a   one two three four",
        "    five six seven",
        "bb",
    ]
