"""``synaptic completion``: what a shell reads so that its Tab key completes our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from synaptic.ui.options import ASKED_IN
from synaptic.ui.screen import write_document
from synaptic.ui.shell_values import PROGRAM

_EPILOG = """\b
As in:
  eval "$(synaptic completion bash)"                             in ~/.bashrc
  eval "$(synaptic completion zsh)"                              in ~/.zshrc
  synaptic completion fish > ~/.config/fish/completions/synaptic.fish"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> None:
    """Write what a shell reads so that Tab completes commands, options, files, pipelines, runs and conversations."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    write_document(kind(context.find_root().command, {}, PROGRAM, ASKED_IN).source() + "\n")
