"""The slash commands, in the order of ``/help``: this table is all that the prompt loads of them.

What a command does is a function of another module, imported when the command is first used. A new command is a row
here, a function there, and, if its arguments can be completed, a row in ``candidates.py``.
"""

from __future__ import annotations

from typing import Final

from synaptic.ui.repl.slash_commands import Command, Registry

REGISTRY: Final = Registry(
    (
        Command(
            name="help",
            handler="commands_help:help_command",
            arguments="[COMMAND]",
            help="List the commands, or explain one",
            example="/help run",
        ),
        Command(
            name="model",
            handler="commands_settings:model_command",
            arguments="[NAME]",
            help="Show the models, or choose one",
            details="Agents that name a model of their own keep it. '/model none' lets the backend choose again.",
            example="/model llama3.1:8b",
        ),
        Command(
            name="pipeline",
            handler="commands_settings:pipeline_command",
            arguments="[NAME|FILE]",
            help="Show the pipelines, or choose the one that answers",
            example="/pipeline answer",
        ),
        Command(
            name="agents",
            handler="commands_run:agents_command",
            arguments="[NAME]",
            help="List the agents, or show one",
            example="/agents editor",
        ),
        Command(
            name="plan",
            handler="commands_run:plan_command",
            arguments="[QUESTION]",
            help="Show what a question would do; no model is called",
            details="Without a question, the plan of the last one.",
            example="/plan How does a heat pump work?",
        ),
        Command(
            name="run",
            handler="commands_run:run_command",
            arguments="PIPELINE|FILE [-i KEY=VALUE ...] [-f PATH ...] [QUESTION]",
            help="Run a pipeline once, with its inputs and files",
            example="/run research -i rounds=2 How does a heat pump work?",
        ),
        Command(
            name="set",
            handler="commands_settings:set_command",
            arguments="KEY VALUE",
            help="Change a setting until the program ends",
            details=(
                "KEY is a setting, or an entry of a table: agent_models.editor. '/config' shows all of them.\n"
                "'none' takes away a value that may be missing. To keep a change: '/config set KEY VALUE'."
            ),
            example="/set temperature 0.2",
        ),
        Command(
            name="config",
            handler="commands_settings:config_command",
            arguments="[show|path|set KEY VALUE]",
            help="Show every setting and where it comes from, or keep one in the file",
            details="'path' names the settings file. 'set' writes to it, and to nothing else.",
            example="/config set model llama3.1:8b",
        ),
        Command(
            name="nodes",
            handler="commands_nodes:nodes_command",
            arguments="[list|add|remove|check|discover ...]",
            help="Show how the nodes stand, until a key is pressed; or change them",
            details=(
                "The table is refreshed while it is watched. 'list' shows the settings;\n"
                "'add URL', 'remove URL|NAME', 'check [URL|NAME]' and 'discover CIDR' do what 'synaptic nodes' does,\n"
                "with the same options."
            ),
            example="/nodes add http://10.0.0.2:11434 --name desk",
            former={
                "add": "add",
                "remove": "remove",
                "health": "check",
                "discover": "discover",
                "stats": "",
                "dashboard": "",
            },
        ),
        Command(
            name="explain",
            handler="commands_nodes:explain_command",
            arguments="[NUMBER]",
            help="Show why the last calls went where they went",
            details=(
                "Each node that was considered, with the seconds that were expected there: waiting for a slot,\n"
                "loading the model, and serving the call. NUMBER is how many calls are shown; without it, the last 3."
            ),
            example="/explain 10",
        ),
        Command(
            name="coordinator",
            handler="commands_distributed:coordinator_command",
            arguments="[start|stop|restart [MODEL]]",
            help="Show the models that are spread over workers, until a key is pressed; or load and end them",
            details=(
                "The picture has the layers of each model on each worker, how far a load is, and how fast it is.\n"
                "'start', 'stop' and 'restart' work on this session's distributed inference, and where it has none,\n"
                "on the services of 'synaptic distributed', which go on when this program ends."
            ),
            example="/coordinator start llama3.1:70b",
        ),
        Command(
            name="rpc",
            handler="commands_distributed:rpc_command",
            arguments="[check [HOST:PORT...]]",
            help="Show the workers: who holds each, which layers it has, how it is",
            details=(
                "'check' asks those that no coordinator holds how they are, as 'synaptic workers check' does.\n"
                "The workers are in the setting rpc_backends: /set rpc_backends '[\"10.0.0.4:50052\"]'."
            ),
            example="/rpc check",
        ),
        Command(
            name="status",
            handler="commands_session:status_command",
            help="Show pipeline, model, backend, turns and tokens",
            example="/status",
        ),
        Command(
            name="history",
            handler="commands_session:history_command",
            arguments="[NUMBER]",
            help="Show the turns of the conversation, or one in full",
            example="/history 1",
        ),
        Command(
            name="runs",
            handler="commands_session:runs_command",
            arguments="[RUN]",
            help="List the recorded runs, or tell one again",
            details="RUN is an id, or a beginning or an end of it. 'synaptic runs' can do more: find, export, remove.",
            example="/runs",
        ),
        Command(
            name="save",
            handler="commands_session:save_command",
            arguments="FILE [--force]",
            help="Save the conversation as Markdown, or as JSON to a .json file",
            details="A file that is there is left alone, unless --force is given.",
            example="/save heat-pumps.md",
        ),
        Command(
            name="undo",
            handler="commands_session:undo_command",
            help="Forget the last turn",
            example="/undo",
        ),
        Command(
            name="retry",
            handler="commands_session:retry_command",
            arguments="[-m MODEL]",
            help="Ask the last question again, in the place of its turn",
            details="With -m, that model is asked this time. The turn stays where the run cannot begin.",
            example="/retry -m llama3.1:70b",
        ),
        Command(
            name="sessions",
            handler="commands_talks:sessions_command",
            help="List the conversations that are kept",
            example="/sessions",
        ),
        Command(
            name="resume",
            handler="commands_talks:resume_command",
            arguments="[NAME|ID]",
            help="Go on with an earlier conversation, or with the last one",
            example="/resume heat pumps",
        ),
        Command(
            name="fork",
            handler="commands_talks:fork_command",
            arguments="[TURN]",
            help="Begin a conversation that goes on from a turn of this one",
            details="This one stays as it is: /resume comes back to it. Without TURN, it goes on from the last one.",
            example="/fork 2",
        ),
        Command(
            name="name",
            handler="commands_talks:name_command",
            arguments="[--force] NAME",
            help="Give this conversation a name",
            details="--force takes the name from another conversation that has it.",
            example="/name heat pumps",
        ),
        Command(
            name="raw",
            handler="commands_answers:raw_command",
            help="Show answers as the model writes them, or rendered again",
            example="/raw",
        ),
        Command(
            name="copy",
            handler="commands_answers:copy_command",
            arguments="[code|NUMBER]",
            help="Copy the last answer, its code, or that of a turn",
            details=(
                "It goes to the terminal's clipboard (OSC 52), also over SSH, and to the desktop's where this machine\n"
                "has one. 'code' copies the last block of code alone."
            ),
            example="/copy code",
        ),
        Command(
            name="edit",
            handler="commands_answers:edit_command",
            arguments="[TEXT]",
            help="Write a question in $EDITOR, and ask it",
            details="It begins with TEXT, else with the last question. An empty file asks nothing.",
            example="/edit",
        ),
        Command(
            name="clear",
            handler="commands_session:clear_command",
            help="Forget the conversation and clear the screen",
            example="/clear",
        ),
        Command(
            name="exit",
            handler="commands_session:exit_command",
            help="Leave",
            example="/exit",
            aliases=("quit",),
        ),
    )
)
