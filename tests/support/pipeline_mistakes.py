"""Mistakes that people make in pipeline files, one a row: the file, where its one problem is, and what it says.

``§`` stands before what the problem points at; it is taken out of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.agents.definition import Agent
from synaptic.pipeline.compiler import CompileContext
from synaptic.pipeline.tools import Tool

if TYPE_CHECKING:
    from pathlib import Path


MARK = "§"


@dataclass(frozen=True)
class Mistake:
    """One row.

    Attributes:
        name: What is wrong, in a few words.
        text: The pipeline; the place of the problem is marked with ``§``.
        says: What the message or the suggestion contains.
        files: Further files beside the pipeline, by their path.
        where: The file that the problem is in, if it is another one; its text has the mark.

    """

    name: str
    text: str
    says: str
    files: dict[str, str] = field(default_factory=dict)
    where: str = "pipeline.yaml"

    @property
    def marked(self) -> str:
        """The text that has the mark."""
        return self.text if self.where == "pipeline.yaml" else self.files[self.where]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Line and column of each mark."""
        before, *rest = self.marked.split(MARK)
        found = []
        for part in rest:
            found.append((before.count("\n") + 1, len(before) - before.rfind("\n")))
            before += part
        return found

    @property
    def place(self) -> tuple[int, int]:
        """Line and column of the problem."""
        return self.places[0]

    def write(self, folder: Path) -> Path:
        """Write the files and return the pipeline's."""
        for name, text in {**self.files, "pipeline.yaml": self.text}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text.replace(MARK, ""), encoding="utf-8")
        return folder / "pipeline.yaml"


HEAD = "version: 1\nname: demo\ninputs: {query: {}, tags: {type: list}, n: {type: integer}}\n"


def in_step(name: str, step: str, says: str, *, more: str = "", result: str = "{{ steps.a }}") -> Mistake:
    """Return a mistake in the step ``a``, whose lines these are."""
    body = "\n".join(f"    {line}" if line else "" for line in step.splitlines())
    return Mistake(name, f'{HEAD}steps:\n  a:\n{body}\n{more}result: "{result}"\n', says)


def at_top(name: str, lines: str, says: str) -> Mistake:
    """Return a mistake in these lines at the top of a file that is right otherwise."""
    text = f"version: 1\nname: demo\n{lines}\nsteps:\n  a: {{agent: editor, prompt: x}}\n"
    return Mistake(name, text + 'result: "{{ steps.a }}"\n', says)


def whole(
    name: str, text: str, says: str, files: dict[str, str] | None = None, where: str = "pipeline.yaml"
) -> Mistake:
    """Return a mistake in this file."""
    return Mistake(name, text, says, files or {}, where)


def count_words(text: str, limit: int = 3) -> int:
    """Count."""
    return min(len(text.split()), limit)


CONTEXT = CompileContext(
    agents={
        "editor": Agent(name="editor", prompt="Edit."),
        "critic": Agent(name="critic", prompt="Judge.", output={"score": "number(0..1)", "issues": "list[string]"}),
        "classifier": Agent(name="classifier", prompt="Classify."),
        "planner": Agent(name="planner", prompt="Plan.", output={"questions": "list[string]", "topic": "string"}),
        "specialist": Agent(name="specialist", prompt="Know.", model="rare-model"),
    },
    tools={"count_words": Tool.of(count_words)},
    backends=("ollama", "embedded"),
    models=("llama3.2:latest", "qwen3:4b"),
    tests=True,
)

EDITOR = "agent: editor\nprompt: x\n"
CRITIC = "agent: critic\nprompt: x\n"
PLAN = "  p: {agent: planner, prompt: x}\n"
OTHER = "  b: {agent: editor, prompt: x}\n"
LOOP = "  r: {repeat: {steps: {draft: {agent: editor, prompt: x}, judge: {agent: critic, prompt: x}}}}\n"

KEYS = [
    at_top("misspelt top key", "§stesp: {}", "did you mean 'steps'?"),
    at_top("another tool's top key", "§nodes: {}", "write 'steps'"),
    at_top("misspelt defaults key", "defaults: {§temperatur: 1}", "did you mean 'temperature'?"),
    at_top("misspelt timeout key", "defaults: {timeout: {§totl: 1}}", "did you mean 'total'?"),
    at_top("misspelt retry key", "defaults: {retry: {§atempts: 1}}", "did you mean 'attempts'?"),
    at_top("misspelt budget key", "budget: {§tokns: 5}", "did you mean 'tokens'?"),
    at_top("misspelt input key", "inputs: {q: {§tpye: string}}", "did you mean 'type'?"),
    at_top("misspelt agent key", "agents: {poet: {prompt: p, §modle: m}}", "did you mean 'model'?"),
    at_top("another tool's agent key", "agents: {poet: {§system: p}}", "write 'prompt'"),
    at_top("another tool's budget key", "budget: {§max_tokens: 5}", "write 'tokens'"),
    at_top("a model at the top", "§model: llama3.2", "write it under 'defaults'"),
    in_step("misspelt step key", EDITOR + "§timout: 3", "did you mean 'timeout'?"),
    in_step("depends_on", EDITOR + "§depends_on: [b]", "write 'needs'", more=OTHER),
    in_step("if", EDITOR + "§if: inputs.n > 1", "write 'when'"),
    in_step("for_each", EDITOR + "§for_each: inputs.tags", "write 'foreach'"),
    in_step("loop", EDITOR + "§loop: inputs.tags", "'foreach'"),
    in_step("parallel", EDITOR + "§parallel: 3", "'concurrency'"),
    in_step("retries", EDITOR + "§retries: 3", "write 'retry: {attempts: N}'"),
    in_step("output_schema", EDITOR + "§output_schema: {a: string}", "write 'output'"),
    in_step("params", "tool: count_words\n§params: {text: a}", "write 'with'"),
    in_step("misspelt loop key", "repeat:\n  §untill: steps.b\n  steps: {b: {agent: editor, prompt: x}}", "'until'"),
    in_step("max_iterations", "repeat: {§max_iterations: 2, steps: {b: {agent: editor, prompt: x}}}", "write 'max'"),
    in_step("misspelt choose key", "choose: {prompt: x, §option: {b: {}, c: {}}}", "did you mean 'options'?"),
    in_step("misspelt option key", "choose: {prompt: x, options: {b: {§stps: []}, c: {}}}", "did you mean 'steps'?"),
    in_step("misspelt on_error key", EDITOR + "on_error: §{user: b}", "must be fail, skip, or {use: STEP}", more=OTHER),
]

VALUES = [
    whole(
        "a version that Python takes for 1",
        'version: §true\nname: d\nsteps: {a: {agent: editor, prompt: x}}\nresult: "r"',
        "'version' must be 1",
    ),
    whole(
        "a version that does not exist",
        'version: §2\nname: d\nsteps: {a: {agent: editor, prompt: x}}\nresult: "r"',
        "must be 1",
    ),
    whole("no steps", "version: 1\nname: d\nsteps: §{}\nresult: r\n", "at least 1 entry"),
    whole("no result", "§version: 1\nname: d\nsteps: {a: {agent: editor, prompt: x}}\n", "lacks 'result'"),
    whole("steps as a list", "version: 1\nname: d\nsteps:\n  §- agent: editor\nresult: r\n", "must be a mapping"),
    whole("no mapping at all", "§just text\n", "begins with 'version: 1'"),
    whole("an empty file", "§", "begins with 'version: 1'"),
    in_step("a number for a prompt", "agent: editor\nprompt: §3", "put it in quotes: '3'"),
    in_step("text for a number", EDITOR + "temperature: §hot", "must be a number"),
    in_step("too hot", EDITOR + "temperature: §3", "at most 2, not 3"),
    in_step("zero tokens", EDITOR + "max_tokens: §0", "at least 1, not 0"),
    in_step("half a token", EDITOR + "max_tokens: §1.5", "must be a whole number"),
    in_step("a misspelt join", EDITOR + "join: §frist", "did you mean 'first'?"),
    in_step("a misspelt overflow", EDITOR + "overflow: §truncate", "did you mean 'truncate_oldest'?"),
    in_step("a misspelt cause", EDITOR + "retry: {on: [§timout]}", "did you mean 'timeout'?"),
    in_step("a misspelt select", EDITOR + "samples: 2\nselect: §votes", "did you mean 'vote'?"),
    in_step("a misspelt on_error", EDITOR + "on_error: §skp", "did you mean 'skip'?"),
    in_step("an unclear cache", EDITOR + "cache: §tomorrow", "12h"),
    in_step("an unclear approval", EDITOR + "approve: §outptu", "did you mean 'output'?"),
    in_step("one sample", EDITOR + "samples: §1", "at least 2"),
    in_step("a negative timeout", EDITOR + "timeout: §-1", "greater than 0"),
    in_step("text for a timeout", EDITOR + "timeout: §soon", "a number of seconds"),
    in_step(
        "a wrong type of max", "repeat: {max: §[1], steps: {b: {agent: editor, prompt: x}}}", "whole number, or an expr"
    ),
    in_step("one option", "choose: {prompt: x, options: §{b: {}}}", "at least 2 entries"),
    in_step(
        "too many options",
        f"choose: {{prompt: x, options: §{{{', '.join(f'o{n}: x' for n in range(65))}}}}}",
        "'options' must have at most 64 entries",
    ),
    whole(
        "a template without quotes inside braces",
        "version: 1\nname: w\ninputs: {query: {}}\nsteps:\n"
        "  a: {agent: editor, prompt: §About {{ inputs.query }}, briefly}\n"
        'result: "{{ steps.a }}"\n',
        "a value with brackets in it ends at them; put it in quotes",
    ),
    in_step("a template without quotes", "agent: editor\nprompt: {§{ inputs.query }}", "begins with '{{' in quotes"),
    in_step("braces around a part", EDITOR + "when: '§{{ inputs.n }} == 3'", "leave them out", more=OTHER),
    in_step("braces inside an expression", EDITOR + "when: 'inputs.n == §{{ inputs.n }}'", "leave them out"),
    in_step("a bad item name", EDITOR + "foreach: inputs.tags\nas: §My-Item", "is not a usable name"),
    in_step("a bad step name", EDITOR, "is not a usable name", more="  §B-1: {agent: editor, prompt: x}\n"),
    at_top("a misspelt input type", "inputs: {q: {type: §str}}", "did you mean 'string'?"),
    at_top("a default of the wrong type", "inputs: {q: {type: integer, default: §three}}", "must be a whole number"),
    at_top("a default out of range", "inputs: {q: {type: number, maximum: 1, default: §2}}", "at most 1"),
    at_top("a default that is no choice", "inputs: {q: {choices: [red, blue], default: §redd}}", "did you mean 'red'?"),
    at_top(
        "bounds the wrong way round", "inputs: {q: {type: number, minimum: §3, maximum: 1}}", "greater than 'maximum'"
    ),
    at_top("a bound of a text", "inputs: {q: {§minimum: 3}}", "goes with a number"),
    at_top("choices of a number", "inputs: {q: {type: integer, §choices: ['1']}}", "goes with a string"),
    at_top("required with a default", "inputs: {q: {§required: true, default: x}}", "exclude each other"),
    at_top("a file that is not there", "inputs: {q: {type: file, default: §none.txt}}", "there is no file 'none.txt'"),
    at_top("a file outside", "inputs: {q: {type: file, default: §../x.txt}}", "folder"),
    at_top("an agent without words", "agents: {poet: {prompt: §' '}}", "the prompt is empty"),
    at_top("an agent's prompt as a template", "agents: {poet: {prompt: 'Say §{{ inputs.q }}'}}", "no template"),
    at_top("an agent's broken output", "agents: {poet: {prompt: p, output: {a: 'list[§strng]'}}}", "'string'"),
]

COMBINATIONS = [
    whole("nothing to do", HEAD + "steps:\n  §a:\n    description: x\nresult: r\n", "has none of 'agent'"),
    whole(
        "two things to do", HEAD + "steps:\n  §a: {agent: editor, prompt: x, use: answer}\nresult: r\n", "both 'agent'"
    ),
    whole("no prompt", HEAD + "steps:\n  §a: {agent: editor}\nresult: r\n", "needs a 'prompt'"),
    in_step("an empty prompt", "agent: editor\nprompt: §''", "the prompt is empty"),
    in_step("a prompt for a tool", "tool: count_words\nwith: {text: a}\n§prompt: x", "gets its arguments with 'with'"),
    in_step("with for an agent", EDITOR + "§with: {a: 1}", "write the values into the prompt"),
    in_step("as without foreach", EDITOR + "§as: thing", "goes with 'foreach'"),
    in_step("concurrency without foreach", EDITOR + "§concurrency: 3", "goes with 'foreach'"),
    in_step("select without samples", EDITOR + "§select: vote", "goes with 'samples'"),
    in_step("a judge who is not asked", EDITOR + "samples: 2\nselect: vote\n§judge: critic", "asks no judge"),
    in_step("a judge without a score", EDITOR + "samples: 2\njudge: §editor", "no number 'score'"),
    in_step("samples of a tool", "tool: count_words\nwith: {text: a}\n§samples: 3", "calls no model"),
    in_step("a cache for a pipeline", "use: answer\nwith: {query: q}\n§cache: true", "write it into that pipeline"),
    in_step(
        "a model for a loop", "repeat: {steps: {b: {agent: editor, prompt: x}}}\n§model: m", "a step inside the loop"
    ),
    in_step("no prompt to approve", "tool: count_words\nwith: {text: a}\napprove: §prompt", "no prompt to approve"),
    in_step("a token timeout of a tool", "tool: count_words\nwith: {text: a}\ntimeout: {§idle: 3}", "write 'total'"),
    in_step("a race of one", EDITOR + "needs: [b]\n§join: first", "two steps or more", more=OTHER),
    in_step("best without a score", "repeat: {§keep: best, steps: {b: {agent: editor, prompt: x}}}", "needs a 'score'"),
    in_step(
        "a plateau without a score", "repeat: {§plateau: 2, steps: {b: {agent: editor, prompt: x}}}", "needs a 'score'"
    ),
    in_step("an empty loop", EDITOR + "§repeat: {max: 2}", "neither 'steps' nor 'self: true'"),
    in_step(
        "a loop over both", "§repeat: {self: true, steps: {b: {agent: editor, prompt: x}}}", "both 'steps' and 'self'"
    ),
    in_step("no round", "repeat: {max: §0, steps: {b: {agent: editor, prompt: x}}}", "at least 1, not 0"),
    in_step("no causes", EDITOR + "retry: {on: §[]}", "'on' is empty"),
    in_step("an item name with a meaning", EDITOR + "foreach: inputs.tags\nas: §steps", "a meaning of its own"),
    whole("an empty result", HEAD + "steps:\n  a: {agent: editor, prompt: x}\nresult: §' '\n", "the result is empty"),
]

NAMES = [
    in_step("an unknown agent", "agent: §edtor\nprompt: '{{ inputs.query }}'", "did you mean 'editor'?"),
    in_step("the field of an unknown agent", "agent: §crtic\nprompt: x", "'critic'", result="{{ steps.a.score }}"),
    in_step("an unknown judge", EDITOR + "samples: 2\njudge: §crtic", "did you mean 'critic'?"),
    in_step("an unknown classifier", "choose: {prompt: x, agent: §clasifier, options: {b: {}, c: {}}}", "'classifier'"),
    in_step("an unknown tool", "tool: §count_word\nwith: {text: a}", "did you mean 'count_words'?"),
    in_step("an unknown argument", "tool: count_words\nwith: {text: a, §limt: 3}", "did you mean 'limit'?"),
    in_step("a missing argument", "tool: §count_words\nwith: {limit: 3}", "needs the argument 'text'"),
    in_step("an argument of the wrong type", "tool: count_words\nwith: {text: a, limit: §many}", "'limit'"),
    in_step(
        "text for a number of a tool",
        "tool: count_words\nwith: {text: a, limit: §'n: {{ inputs.n }}'}",
        "one reference alone",
    ),
    in_step("an unknown backend", EDITOR + "backend: §olama", "did you mean 'ollama'?"),
    in_step("an unknown model", EDITOR + "model: §llama3.3", "did you mean 'llama3.2"),
    in_step("an unknown fallback model", EDITOR + "fallback_models: [qwen3:4b, §qwen3:5b]", "did you mean 'qwen3:4b'?"),
    in_step("an agent's unknown model", "agent: §specialist\nprompt: x", "wants the model 'rare-model'"),
    at_top("an unknown default model", "defaults: {model: §lama3.2}", "did you mean 'llama3.2"),
    in_step("an unknown need", EDITOR + "needs: [§c]", "there is no step 'c'", more=OTHER),
    in_step(
        "an unknown option step", "choose: {prompt: x, options: {y: {steps: [§bb]}, n: {}}}", "no step 'bb'", more=OTHER
    ),
    in_step("an unknown fallback", EDITOR + "on_error: {use: §c}", "there is no step 'c'", more=OTHER),
    in_step("its own fallback", EDITOR + "on_error: {use: §a}", "cannot take its own place"),
    in_step("an unknown output type", EDITOR + "output: {title: string, size: §intger}", "did you mean 'integer'?"),
    in_step("a bad output field", EDITOR + "output:\n  §my-field: string", "is not a field name"),
    in_step(
        "a field name of a loop",
        "repeat: {steps: {§rounds: {agent: editor, prompt: x}}}",
        "has a field 'rounds' already",
    ),
    in_step(
        "the same name in a loop",
        "repeat: {steps: {§b: {agent: editor, prompt: x}}}",
        "outside the loop too",
        more=OTHER,
    ),
    in_step(
        "a template as a description", "choose: {prompt: x, options: {y: 'if §{{ inputs.n }}', n: {}}}", "plain text"
    ),
]

REFERENCES = [
    in_step("a dangling step", "agent: editor\nprompt: 'See {{ §steps.bb }}.'", "did you mean 'b'?", more=OTHER),
    in_step("a dangling input", "agent: editor\nprompt: '{{ §inputs.qery }}'", "did you mean 'query'?"),
    in_step("a dangling run field", "agent: editor\nprompt: '{{ §run.idd }}'", "did you mean 'id'?"),
    in_step("an unknown root", "agent: editor\nprompt: '{{ §input.query }}'", "write inputs.query"),
    in_step("a step without steps", "agent: editor\nprompt: '{{ §b }}'", "write steps.b", more=OTHER),
    in_step("an input without inputs", "agent: editor\nprompt: '{{ §query }}'", "write inputs.query"),
    in_step("all steps", "agent: editor\nprompt: '{{ §steps }}'", "needs the name of one step", more=OTHER),
    in_step("itself", "agent: editor\nprompt: 'Better: {{ §steps.a }}'", "refers to itself"),
    in_step("an item without a map", "agent: editor\nprompt: '{{ §item }}'", "give the step a 'foreach'"),
    in_step(
        "a round without a loop", "agent: editor\nprompt: '{{ §previous.b }}'", "there is no loop here", more=OTHER
    ),
    in_step(
        "a misspelt field", "agent: editor\nprompt: |\n\n  One\n  two {{ §steps.p.questons }}", "'questions'", more=PLAN
    ),
    in_step("a folded prompt", "agent: editor\nprompt: >-\n  One\n  two\n  {{ §steps.q }}", "no step 'q'", more=PLAN),
    in_step("a quoted prompt", 'agent: editor\nprompt: "One\\n\\ttwo \\" {{ §steps.q }}"', "no step 'q'", more=PLAN),
    in_step("a field of a text", "agent: editor\nprompt: '{{ §steps.b.title }}'", "text", more=OTHER),
    in_step("into a loop", "agent: editor\nprompt: '{{ §steps.judge.score }}'", "write steps.r.judge", more=LOOP),
    in_step("a need inside a loop", EDITOR + "needs: [§judge]", "inside the loop 'r'", more=LOOP),
    in_step(
        "the loop around",
        "repeat:\n  steps:\n    b: {agent: editor, prompt: 'Before: {{ §steps.a }}'}",
        "write previous",
    ),
    in_step(
        "a misspelt step of the round before",
        "repeat:\n  steps:\n    b: {agent: editor, prompt: 'Before: {{ §previous.bb }}'}",
        "did you mean 'b'?",
    ),
    in_step(
        "until a missing field",
        "repeat: {until: §steps.j.scroe > 1, steps: {j: {agent: critic, prompt: x}}}",
        "'score'",
    ),
    in_step(
        "until a step outside",
        "repeat: {until: §steps.c, steps: {j: {agent: critic, prompt: x}}}",
        "no step 'c'",
        more=OTHER,
    ),
    in_step(
        "a score that is text", "repeat: {score: §steps.j, steps: {j: {agent: editor, prompt: x}}}", "must be a number"
    ),
    in_step(
        "a bound that is text",
        "repeat: {max: §inputs.query, steps: {j: {agent: editor, prompt: x}}}",
        "must be a number",
    ),
    in_step("a map over text", EDITOR + "foreach: §inputs.query", "needs a list, and this is text"),
    in_step("a map over a record", EDITOR + "foreach: §steps.p", "did you mean steps.p.questions?", more=PLAN),
    in_step("a map over a number", EDITOR + "foreach: §inputs.n", "needs a list, and this is a number"),
    in_step("an item in a condition without a map", EDITOR + "when: §item", "no map here"),
    in_step("an unknown step in with", "use: answer\nwith: {query: 'So {{ §steps.c }}'}", "no step 'c'", more=OTHER),
    in_step(
        "an unknown step deep in with",
        "tool: count_words\nwith:\n  text: x\n  limit: '{{ §steps.c }}'",
        "no step 'c'",
        more=OTHER,
    ),
    in_step("a dangling result", EDITOR, "did you mean 'a'?", result="{{ §steps.aa }}"),
    whole(
        "a template that does not end",
        HEAD + "steps:\n  a:\n    agent: editor\n    prompt: 'Say §{{ inputs.query'\nresult: r\n",
        "write }} behind it",
    ),
    in_step("an unknown filter", "agent: editor\nprompt: '{{ inputs.query | §uper }}'", "upper"),
    in_step("unsafe access", "agent: editor\nprompt: '{{ inputs.query.§__class__ }}'", "__class__"),
    in_step("an import", "agent: editor\nprompt: \"§{% include 'x' %}\"", ""),
    in_step("a broken condition", EDITOR + "when: 1 §+", "something is missing behind '+'"),
]

NEVER = [
    in_step("never", EDITOR + "when: '§false'", "can never run"),
    in_step("never by arithmetic", EDITOR + "when: §1 > 2", "can never run"),
    in_step("a map over nothing", EDITOR + "foreach: '§[]'", "can never run"),
    whole(
        "a direct cycle",
        HEAD
        + "steps:\n  §a: {agent: editor, prompt: '{{ steps.b }}'}\n"
        + "  b: {agent: editor, prompt: '{{ steps.a }}'}\nresult: r",
        "a -> b -> a",
    ),
    whole(
        "a cycle through needs",
        HEAD
        + "steps:\n  §a: {agent: editor, prompt: x, needs: [b]}\n"
        + "  b: {agent: editor, prompt: '{{ steps.a }}'}\nresult: r",
        "a -> b -> a",
    ),
    whole(
        "a cycle through a loop",
        HEAD
        + "steps:\n  §a: {agent: editor, prompt: '{{ steps.r.b }}'}\n"
        + "  r: {repeat: {steps: {b: {agent: editor, prompt: '{{ steps.a }}'}}}}\nresult: r",
        "a -> r -> a",
    ),
    whole(
        "a cycle inside a loop",
        HEAD
        + "steps:\n  r:\n    repeat:\n      steps:\n        §a: {agent: editor, prompt: '{{ steps.b }}'}\n"
        + "        b: {agent: editor, prompt: '{{ steps.a }}'}\nresult: r",
        "a -> b -> a",
    ),
    whole(
        "a cycle through an option",
        HEAD
        + "steps:\n  §a: {choose: {prompt: '{{ steps.b }}', options: {y: {steps: [b]}, n: {}}}}\n"
        + "  b: {agent: editor, prompt: x}\nresult: r",
        "a -> b -> a",
    ),
    whole(
        "a fallback that waits",
        HEAD
        + "steps:\n  a: {agent: editor, prompt: x, on_error: {use: §b}}\n"
        + "  b: {agent: editor, prompt: '{{ steps.a }}'}\nresult: '{{ steps.a }}'",
        "waits for the step that it should replace",
    ),
    whole(
        "a race of an option",
        HEAD
        + "steps:\n  c: {choose: {prompt: x, options: {y: {steps: [a]}, n: {}}}}\n  b: {agent: editor, prompt: x}\n"
        + "  a: {agent: editor, prompt: '{{ steps.b }}', §join: any}\nresult: r",
        "does not go with being an option",
    ),
]

GOOD_PART = """\
version: 1
name: part
inputs: {word: {required: true}}
steps: {x: {agent: editor, prompt: "{{ inputs.word }}"}}
result: "{{ steps.x }}"
"""


def using(name: str, use: str, says: str, files: dict[str, str] | None = None, where: str = "pipeline.yaml") -> Mistake:
    """Return a mistake in the use of another pipeline."""
    text = f"{HEAD}steps:\n  a: {{use: {use}}}\nresult: '{{{{ steps.a }}}}'\n"
    return whole(name, text, says, {"part.yaml": GOOD_PART, **(files or {})}, where)


def part(step: str) -> str:
    """Return another pipeline with one step ``x``."""
    return f"version: 1\nname: other\nsteps:\n  x: {step}\nresult: r\n"


FILES = [
    using("an unknown built-in", "§anwser", "did you mean 'answer'?"),
    using("a file's name without its ending", "§part", "did you mean 'part.yaml'?"),
    using("an unknown file", "§prat.yaml", "did you mean 'part.yaml'?"),
    using("an unknown input", "part.yaml, with: {word: a, §wrod: b}", "did you mean 'word'?"),
    using("a missing input", "§part.yaml", "needs the input 'word'"),
    using("an input of the wrong type", "answer, with: {query: §[1]}", "must be text"),
    using("a list for a text", "part.yaml, with: {word: §'{{ inputs.tags }}'}", "this is a list"),
    using("an absolute path", "§/etc/passwd.yaml", "is an absolute path"),
    using("a path that climbs out", "§../part.yaml", "climbs out"),
    using("a path that climbs out later", "§x/../../part.yaml", "climbs out"),
    using("a directory", "§folder.yaml", "is a directory", {"folder.yaml/x.yaml": GOOD_PART}),
    using("a pipeline that uses itself", "§pipeline.yaml", "the pipeline uses itself"),
    using(
        "each other",
        "other.yaml",
        "pipeline.yaml -> other.yaml -> pipeline.yaml",
        {"other.yaml": part("{use: §pipeline.yaml}")},
        "other.yaml",
    ),
    using(
        "a mistake in a used file",
        "other.yaml",
        "did you mean 'editor'?",
        {"other.yaml": part("{agent: §edtor, prompt: x}")},
        "other.yaml",
    ),
    using(
        "a used file that is no pipeline",
        "other.yaml",
        "did you mean 'agent'?",
        {"other.yaml": part("{§agnt: editor, prompt: x}")},
        "other.yaml",
    ),
]

YAML = [
    whole("a tab", HEAD + "steps:\n§\ta: 1\n", "indent with spaces, not tabs"),
    whole("an unknown alias", HEAD + "steps:\n  a: &x {agent: editor, prompt: x}\n  b: §*y\nresult: r", "no anchor"),
    whole("a merge key", HEAD + "steps:\n  a:\n    §<<: {agent: editor}\n    prompt: x\nresult: r\n", "merge keys"),
    in_step("a key twice", "agent: editor\nprompt: x\n§prompt: y", "stands twice"),
    whole(
        "a step twice",
        HEAD + "steps:\n  a: {agent: editor, prompt: x}\n  §a: {agent: editor, prompt: y}\nresult: r",
        "twice",
    ),
    whole("a tag", "version: 1\nname: §!!python/name:os.system x\nsteps: {}\nresult: r\n", "is not read"),
    whole("two documents", HEAD + "steps: {a: {agent: editor, prompt: x}}\nresult: r\n§---\na: 1\n", "second document"),
    whole("an unclosed bracket", "version: 1\nname: §[d\nsteps: {}\n", "write ] behind what it holds"),
    whole("a colon in a value", "version: 1\nname: a§: b\n", "in quotes"),
    whole("a complex key", HEAD + "? §[a]\n: 1\nsteps: {a: {agent: editor, prompt: x}}\nresult: r\n", "plain text"),
    whole(
        "an alias bomb",
        "b0: &b0 [x, x]\n"
        + "".join(f"b{i}: &b{i} [*b{i - 1}, {'§' if i == 13 else ''}*b{i - 1}]\n" for i in range(1, 60)),
        "aliases",
    ),
    whole("bottomless nesting", "version: " + "[" * 39 + "§" + "[" * 100_000, "levels deep"),
    whole("a control character", "version: 1\nname: a§\x07\n", "U+0007"),
]

MISTAKES = [*KEYS, *VALUES, *COMBINATIONS, *NAMES, *REFERENCES, *NEVER, *FILES, *YAML]
