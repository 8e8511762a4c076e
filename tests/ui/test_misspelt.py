"""Words that are nearly a command."""

import pytest

from synaptic.ui.misspelt import ELSEWHERE, meant_action, meant_command
from synaptic.ui.root import SUBCOMMANDS

ACTIONS = {"agents": ["list", "show"], "nodes": ["list", "add", "check"], "models": ["list", "pull"]}


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("agnets list", "agents list"),
        ("agent list", "agents list"),
        ("Agent Show editor", "agents show"),
        ("Pipeline", "pipelines"),
        ("doctr", "doctor"),
        ("dcotor", "doctor"),
        ("CONFIG", "config"),
        ("node chek desk", "nodes check"),
        ("model pull", "models pull"),
        ("help", "--help"),
        ("help batch", "batch --help"),
        ("help nodes add", "nodes add --help"),
        ("status", "doctor"),
        ("pull llama3.2", "models pull"),
        ("validate mine.yaml", "pipelines validate"),
        ("Test my.yml", "pipelines test"),
        ("set model llama3.2", "config set"),
        ("set num_ctx=8192", "config set"),
        ("unset pipeline", "config unset"),
        # Questions:
        ("show me", None),
        ("validate this", None),
        ("set the table", None),
        ("what is love", None),
        ("agnets of change in history", None),
        ("model trains", None),
        ("nodes? why", None),
        ("note taking apps", None),
        ("doctr who", None),
        ("help me", None),
        ("help nodes grow", None),
        ("status quo", None),
        ("pull the plug now", None),
        ("why?", None),
        ("5 + 3", None),
        ("", None),
    ],
)
def test_few_words_that_are_nearly_a_command(typed: str, command: str | None):
    assert meant_command(typed.split(), SUBCOMMANDS, lambda name: ACTIONS.get(name, [])) == command


@pytest.mark.parametrize(
    ("typed", "action"),
    [("ls", "list"), ("fetch", "pull"), ("PULL", None), ("lst", "list"), ("of", None), ("rm", None)],
)
def test_an_action_that_a_command_lacks(typed: str, action: str | None):
    assert meant_action(typed, ACTIONS["models"]) == action


def test_commands_of_other_programs_lead_to_ones_that_exist():
    ours = {words.split()[0] for words in ELSEWHERE.values()}
    assert ours - {"--help", "--version"} <= set(SUBCOMMANDS)
