"""The root of the command line: which words are a question, which a subcommand, and how it ends.

The help needs click and no more: commands are imported when they are called, rich when an error is shown.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from synaptic import pipeline
from synaptic.errors import ExitCode, PipelineError, SynapticError, UsageError
from synaptic.ui import file_words, screen
from synaptic.ui.misspelt import meant_action, meant_command, near
from synaptic.ui.options import ASKED_IN, Options, question_options
from synaptic.ui.streams import failure_of

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION_COMMAND = "run"
CHAT_COMMAND = "chat"

# Name -> (where it is, its line in the help): the help imports none of them.
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "run": ("synaptic.ui.commands.run:run", "Ask one question (what a question without a command does)."),
    "chat": ("synaptic.ui.commands.chat:chat", "Talk: the prompt that opens where no question is given."),
    "runs": ("synaptic.ui.commands.runs:runs", "List, find, show and remove recorded runs, and go on with them."),
    "sessions": (
        "synaptic.ui.commands.conversations:sessions",
        "List, show, export and remove kept conversations.",
    ),
    "batch": ("synaptic.ui.commands.batch:batch", "Run a pipeline over many inputs; goes on after a kill."),
    "pipelines": ("synaptic.ui.commands.pipelines:pipelines", "List, show, check and test pipelines."),
    "agents": ("synaptic.ui.commands.agents:agents", "List and show agents."),
    "models": ("synaptic.ui.commands.models:models", "List the models there are, show or fetch one."),
    "nodes": ("synaptic.ui.commands.nodes:nodes", "List, add, check and find the nodes that calls are spread over."),
    "engine": ("synaptic.ui.commands.engine:engine", "Build or adopt the llama.cpp that distributed inference needs."),
    "workers": ("synaptic.ui.commands.workers:workers", "List and check the llama.cpp RPC workers of large models."),
    "machines": ("synaptic.ui.commands.machines:machines", "Add machines over SSH, that lend memory to large models."),
    "distributed": (
        "synaptic.ui.commands.distributed:distributed",
        "Plan, load and look at models whose layers are spread over workers.",
    ),
    "serve": ("synaptic.ui.commands.serve:serve", "Give other programs one address for all models and pipelines."),
    "top": ("synaptic.ui.commands.top:top", "Show how busy each node is, what waits and why, each second."),
    "keys": ("synaptic.ui.commands.gateway_keys:keys", "Make, list and revoke the keys of the gateway's clients."),
    "config": ("synaptic.ui.commands.config:config", "Show, change and check the settings."),
    "trust": ("synaptic.ui.commands.trust:trust", "Show what the files of a folder ask for, and trust it."),
    "completion": ("synaptic.ui.commands.shell_completion:completion", "Write what makes Tab complete in a shell."),
    "doctor": ("synaptic.ui.commands.doctor:doctor", "Check what this machine has, and say what to fix."),
}

_LONE_WORD = re.compile(r"[A-Za-z][A-Za-z_-]*")
_MOST_MEANT = 3

_EPILOG = """\b
Examples:
  {prog} "Explain how a heat pump works"
  {prog} -p answer "What is a llama?"            one call, the fastest answer
  {prog} --plan "Explain how a heat pump works"  what would run, and where
  cat notes.txt | {prog} "Summarise this"        the text goes after the question, however long it is
  {prog} -f notes.txt "What was decided?"        the same, from a file
  {prog} -- agents list                          a question, not the command
  {prog}                                         talk, on a terminal

\b
Exit codes: 0 answered, 1 the run failed, 2 wrong usage or settings,
3 nothing can serve the request, 130 interrupted."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(SUBCOMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, attribute = SUBCOMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' section from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in SUBCOMMANDS.items()])

    def collect_usage_pieces(self, _ctx: click.Context) -> list[str]:
        """Return the usage line: a question is the main thing."""
        return ["[OPTIONS] [QUESTION]...", "| COMMAND [ARGS]..."]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples with the name that the program was called by."""
        self.epilog = _EPILOG.format(prog=ctx.command_path)
        super().format_epilog(ctx, formatter)


def execute(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code; every error but an interruption has then been shown.

    Raises:
        KeyboardInterrupt: If the person broke it off.
    """
    try:
        root = build_root()
        if ASKED_IN in os.environ:  # a shell asks, on behalf of its Tab key
            result = import_module("synaptic.ui.shell_values").answer(root, os.environ[ASKED_IN])
        else:
            result = root.main(rewrite(root, arguments), prog_name=program_name(sys.argv[0]), standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except SystemExit as exc:
        # So does click pass a broken pipe over. It is not standard output: that one breaks without an error.
        screen.show_bug(exc.__context__ or exc, verbose="-v" in arguments)
        return int(ExitCode.FAILED)
    except click.Abort as exc:
        raise KeyboardInterrupt from exc
    except click.exceptions.NoArgsIsHelpError as exc:  # a group alone: `synaptic nodes`
        exc.show()
        return exc.exit_code
    except click.ClickException as exc:
        message, hint = usage_message(exc)
        told = [f"error: {message}", *([f"hint: {hint}"] if hint else [])]
        screen.write_text("\n".join(told), sys.stderr)
        return exc.exit_code
    except SynapticError as exc:
        screen.show_error(screen.stderr_console(), exc)
        return int(exc.exit_code)
    except Exception as exc:  # noqa: BLE001 - the end of the line: a person gets a sentence, -v the traceback
        if exc is failure_of(sys.stdin):
            print(f"error: standard input cannot be read: {exc.strerror}", file=sys.stderr)
            return int(ExitCode.USAGE)
        screen.show_bug(exc, verbose=any(word in {"-v", "--verbose"} for word in arguments))
        return 1
    return result if isinstance(result, int) else 0


def build_root() -> click.Group:
    """Return the root command."""

    @click.group(
        cls=LazyGroup,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Answer a question with a graph of agents, on the machines you own.",
    )
    @question_options
    @click.option(
        "--version", is_flag=True, callback=_show_version, expose_value=False, is_eager=True, help="Print the version."
    )
    @click.pass_context
    def root(context: click.Context, /, **values: Any) -> None:
        context.obj = Options().merged(values)
        _refuse_question_options(context, context.obj)

    assert isinstance(root, click.Group)
    return root


def program_name(path: str) -> str:
    """Return what a person typed to call us."""
    name = os.path.basename(path)  # noqa: PTH119 - pathlib is not loaded, and costs 5 ms
    return f"python {name}" if name.endswith(".py") else name


def rewrite(root: click.Group, arguments: Sequence[str], *, interactive: bool | None = None) -> list[str]:
    """Return the arguments with the subcommand that they mean put in front, where none is named.

    Args:
        root: The root command, whose options are known.
        arguments: What was typed.
        interactive: Whether a person sits at standard input; asked from the terminal unless given.

    Raises:
        click.UsageError: If the words are nearly a command.
        UsageError: If they are the names of files, or one word that a person at a terminal writes without a question.
    """
    words = list(arguments)
    if interactive is None:
        interactive = sys.stdin.isatty()
    index = first_word(words, _valued(root))
    if index is not None and words[index] in SUBCOMMANDS:
        if words[index] == QUESTION_COMMAND:
            _refuse_files(root, words[:index] + words[index + 1 :])
        return words
    _refuse_files(root, words)
    if index is not None:
        _refuse_misspelt(root, words[index:])
        if interactive and len(words) == 1:
            _refuse_lone_word(root, words[0])
        return [QUESTION_COMMAND, *words]
    if any(word in {"-h", "--help", "--version"} for word in words):
        return words
    asking = ("-i", "-f", "--input=", "--file=")
    asks = any(word in {"--plan", "--json", "--input", "--file"} or word.startswith(asking) for word in words)
    return [CHAT_COMMAND if interactive and not asks and _talks(root, words) else QUESTION_COMMAND, *words]


def _talks(root: click.Group, words: Sequence[str]) -> bool:
    """Return whether the prompt is meant: not where the pipeline that is named takes no question, or is none."""
    named = root.make_context(None, [*words], resilient_parsing=True).params["pipeline"]
    if named is None:
        return True
    try:
        return "query" in pipeline.Pipeline.find(named).spec.inputs
    except PipelineError:
        return False  # which says what is wrong, and ends with its code


def first_word(arguments: Sequence[str], valued: frozenset[str]) -> int | None:
    """Return the index of the first word that is no option and no option's value, or of ``--``."""
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "--" or not word.startswith("-") or word == "-":
            return index
        index += 2 if _takes_next(word, valued) else 1
    return None


def _refuse_files(root: click.Group, words: Sequence[str]) -> None:
    """Refuse files that were not meant as words of the question; behind ``--`` everything is."""
    asked = list(words[: words.index("--")] if "--" in words else words)
    valued = _valued(root)
    flags = [index for index, word in enumerate(asked) if _is_option(word, "f", "--file") and _takes_next(word, valued)]
    file_words.refuse_spilled((asked[index + 1], asked[index + 2]) for index in flags if index + 2 < len(asked))
    first = first_word(asked, valued)
    if first is not None and not any(_is_option(word.partition("=")[0], "p", "--pipeline") for word in asked):
        file_words.refuse_pipeline(asked[first], program_name(sys.argv[0]))


def _is_option(word: str, letter: str, long: str) -> bool:
    return word == long or (word[:1] == "-" and word[1:2] != "-" and letter in word)


def _refuse_misspelt(root: click.Group, words: Sequence[str]) -> None:
    if "--" in words:
        return
    context = click.Context(root, info_name=program_name(sys.argv[0]))
    valued = _valued(root)
    plain: list[str] = []
    while (index := first_word(words, valued)) is not None:
        plain.append(words[index])
        words = words[index + 1 :]

    command = meant_command(plain, SUBCOMMANDS, lambda name: _actions_of(root, context, name))
    if command is not None:
        typed = " ".join(plain)
        message = f"{typed!r} is not a command; did you mean {context.command_path} {command}?"
        raise NearlyACommand(message, context, typed)


def _actions_of(root: click.Group, context: click.Context, name: str) -> list[str]:
    command = root.get_command(context, name)
    return command.list_commands(context) if isinstance(command, click.Group) else []


def _refuse_lone_word(root: click.Group, word: str) -> None:
    """Refuse one word that looks like a command, or is a file, and has nothing around it that asks something."""
    context = click.Context(root, info_name=program_name(sys.argv[0]))
    if file_words.is_file(word):
        message = f"{word} is a file, and no question"
        raise UsageError(message, hint=f'to ask about it: {context.command_path} -f {word} "…"')
    if not _LONE_WORD.fullmatch(word):
        return
    groups = [name for name in SUBCOMMANDS if word.lower() in _actions_of(root, context, name)]
    meant = " or ".join(f"{context.command_path} {name} {word.lower()}" for name in groups[:_MOST_MEANT])
    message = f"{word!r} is one word, and no command" + (f"; did you mean {meant}?" if meant else "")
    raise NearlyACommand(message, context, word)


class NearlyACommand(click.UsageError):
    """Words that are nearly a command."""

    def __init__(self, message: str, context: click.Context, typed: str) -> None:
        super().__init__(message, context)
        self.hint = f"to ask it as a question: {context.command_path} -- {typed}"


def _takes_next(word: str, valued: frozenset[str]) -> bool:
    """Return whether the value of an option (``-p``, ``-qp``, ``--set``) is the word after it."""
    if word.startswith("--"):
        return word in valued
    for position, letter in enumerate(word[1:], start=2):
        if f"-{letter}" in valued:
            return position == len(word)
    return False


def _valued(root: click.Group) -> frozenset[str]:
    options = (param for param in root.params if isinstance(param, click.Option) and not param.is_flag)
    return frozenset(name for option in options for name in option.opts)


def _refuse_question_options(context: click.Context, options: Options) -> None:
    name = context.invoked_subcommand
    given = {"--plan": options.plan, "-i": options.inputs, "-f": options.files, "--yes": options.yes}
    wrong = next((flag for flag, value in given.items() if value), None)
    if wrong and name not in {QUESTION_COMMAND, CHAT_COMMAND}:
        message = f"{wrong} is for questions, and {name!r} is a command; to ask it, write -- before it"
        raise click.UsageError(message, context)


def usage_message(error: click.ClickException) -> tuple[str, str | None]:
    """Return what click found wrong, and what to write instead."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else program_name(sys.argv[0])
    if isinstance(error, NearlyACommand):
        return error.message, error.hint
    hint = f"see {path} --help"
    if isinstance(error, click.NoSuchOption):
        suggestion = f"; did you mean {near}?" if (near := _near_option(error)) else ""
        if context is not None and context.info_name not in {None, QUESTION_COMMAND} and context.parent is not None:
            hint = f"{_usage(context)}{hint}"
        else:
            hint += "; a question that begins with '-' goes after --"
        return f"unknown option {error.option_name}{suggestion}", hint
    unknown = getattr(error, "command_name", None)  # click 8.4 has a class for it
    if unknown is not None and context is not None and isinstance(context.command, click.Group):
        action = meant_action(unknown, context.command.list_commands(context))
        suggestion = f"; did you mean {path} {action}?" if action is not None else ""
        program, _, group = path.rpartition(" ")
        if group == "pipelines" and action is None:
            suggestion = f"; to run one: {program} -p NAME|FILE"
        return f"no such command {unknown!r}{suggestion}", f"{hint}; to ask it: {program} -- {group} {unknown} …"
    if isinstance(error, click.MissingParameter) and context is not None:
        hint = f"{_usage(context)}{hint}"
    message = _plain_words(error.format_message()).rstrip(".,")
    return message[:1].lower() + message[1:], hint


def _usage(context: click.Context) -> str:
    """Return how a command is written, with all that it cannot do without; "" where that is nothing."""
    options = [each for each in context.command.params if isinstance(each, click.Option) and each.required]
    needed = [f"{option.opts[0]} {option.make_metavar(context)}" for option in options]
    pieces = [piece for piece in context.command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    return " ".join(["write", context.command_path, *pieces, *needed]) + "; " if pieces or needed else ""


def _plain_words(message: str) -> str:
    """Return a message of click's on one line, and without the names of its types."""
    message = re.sub(r"is not a valid integer(?: range)?", "is no whole number", message)
    message = re.sub(r"is not a valid float(?: range)?", "is no number", message)
    return re.sub(r"\s*\n\s*", " ", message)


def _near_option(error: click.NoSuchOption) -> str | None:
    """Return the option that was most likely meant; the dashes that all have do not make two alike."""
    root = ["--version"] if error.ctx is not None and error.ctx.info_name == QUESTION_COMMAND else []
    options = {name.lstrip("-"): name for name in [*(error.possibilities or ()), *root]}
    meant = near(error.option_name.lstrip("-"), options)
    return options[meant] if meant is not None else None


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: ARG001, FBT001
    if wanted and not context.resilient_parsing:
        from synaptic.version import __version__  # noqa: PLC0415 - 20 ms that the help need not pay

        click.echo(f"synapticllamas {__version__}")
        context.exit()
