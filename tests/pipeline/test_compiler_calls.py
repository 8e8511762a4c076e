"""Compiling calls: which model with which bounds, and what becomes of samples and choices."""

import math

import pytest
from pipeline_mistakes import CONTEXT

from synaptic.agents.definition import Agent
from synaptic.errors import PipelineError
from synaptic.messages import Timeouts
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.graph import CallPolicy, CompiledCall, CompiledStep
from synaptic.pipeline.loader import Pipeline

AGENTS = {
    **CONTEXT.agents,
    "fast": Agent(name="fast", prompt="Go.", model="tiny", temperature=0.1, max_tokens=9),
}


def steps_of(steps: str, top: str = "", **options) -> dict[str, CompiledStep]:
    text = f"version: 1\nname: demo\ninputs: {{query: {{}}, n: {{type: integer}}}}\n{top}steps:\n{steps}\nresult: r\n"
    context = CompileContext(**{"agents": AGENTS, "tools": CONTEXT.tools, **options})
    return dict(compile_pipeline(Pipeline.parse(text, "p.yaml"), context).graph.steps)


# -- calls -------------------------------------------------------------------------------------------------------------


def call_of(step: str, top: str = "", **options) -> CompiledCall:
    call = steps_of(f"  a: {step}", top=top, **options)["a"].call
    assert call is not None
    return call


@pytest.mark.parametrize(
    ("step", "top", "options", "model", "origin"),
    [
        ("{agent: editor, prompt: x}", "", {}, None, ""),
        ("{agent: editor, prompt: x}", "defaults: {model: d}\n", {}, "d", "defaults"),
        ("{agent: editor, prompt: x}", "defaults: {model: d}\n", {"model": "mine"}, None, ""),
        ("{agent: fast, prompt: x}", "defaults: {model: d}\n", {"model": "mine"}, "tiny", "agent"),
        ("{agent: fast, prompt: x}", "", {"agent_models": {"fast": "big"}}, "big", "agent_models"),
        ("{agent: fast, prompt: x, model: s}", "", {"agent_models": {"fast": "big"}, "model": "m"}, "s", "step"),
    ],
)
def test_the_model_is_the_steps_the_persons_the_agents_or_the_pipelines(
    step: str, top: str, options: dict, model: str | None, origin: str
):
    call = call_of(step, top, **options)

    assert (call.model, call.model_origin) == (model, origin)


DEFAULTS = """\
defaults:
  temperature: 0.5
  max_tokens: 50
  num_ctx: 4096
  timeout: {total: 9, idle: 2}
  retry: {attempts: 5, on: [busy], repairs: 3}
  overflow: summarise
"""


def test_the_pipelines_defaults_hold_where_neither_step_nor_agent_says_otherwise():
    call = call_of("{agent: editor, prompt: x}", DEFAULTS)

    assert (call.temperature, call.max_tokens, call.num_ctx, call.repairs) == (0.5, 50, 4096, 3)
    assert call.timeouts == Timeouts(total=9, idle=2)
    assert call.policy == CallPolicy(attempts=5, retry_on=frozenset({"busy"}), overflow="summarise")


def test_the_step_goes_before_the_agent_and_the_agent_before_the_defaults():
    agents = call_of("{agent: fast, prompt: x}", DEFAULTS)
    own = call_of(
        "{agent: fast, prompt: x, temperature: 0, max_tokens: 7, timeout: {first_token: 1, idle: 3}, backend: ollama, "
        "retry: {attempts: 1, on: [crash, timeout], repairs: 0}, overflow: error, cache: 10m, fallback_models: [b, c]}",
        DEFAULTS,
    )

    assert (agents.temperature, agents.max_tokens) == (0.1, 9)
    assert (own.temperature, own.max_tokens, own.repairs) == (0, 7, 0)
    assert own.timeouts == Timeouts(first_token=1, idle=3, total=9)
    assert own.policy == CallPolicy(
        backend="ollama",
        attempts=1,
        retry_on=frozenset({"crash", "timeout"}),
        fallback_models=("b", "c"),
        cache_seconds=600,
        overflow="error",
    )


def test_a_cache_without_a_time_holds_for_ever():
    assert call_of("{agent: editor, prompt: x, cache: true}").policy.cache_seconds == math.inf


def test_a_steps_own_output_shape_wins():
    shape = call_of("{agent: critic, prompt: x, output: {title: string}}").shape

    assert shape is not None and shape.field_names() == ("title",)


def test_a_local_agent_hides_another_of_its_name():
    top = "agents: {editor: {prompt: ' Mine. ', temperature: 1, output: {title: string}}}\n"

    call = call_of("{agent: editor, prompt: x}", top)

    assert (call.agent.prompt, call.temperature) == ("Mine.", 1)
    assert call.shape is not None and call.shape.field_names() == ("title",)


def test_a_timeout_bounds_each_call_of_an_agent_and_the_whole_of_anything_else():
    found = steps_of(
        """\
  a: {agent: editor, prompt: x, timeout: 3}
  t: {tool: count_words, with: {text: x}}
  t2: {tool: count_words, with: {text: x}, timeout: 4}
  u: {use: answer, with: {query: q}, timeout: 5}
  r: {timeout: 6, repeat: {steps: {b: {agent: editor, prompt: x}}}}
  s: {agent: editor, prompt: x, timeout: 7, repeat: {self: true}}
""",
        top="defaults: {timeout: 9}\n",
        agents=AGENTS,
    )

    assert {name: step.timeout for name, step in found.items()} == {
        "a": None,
        "t": 9,
        "t2": 4,
        "u": 5,
        "r": 6,
        "s": None,
    }
    assert found["a"].call and found["a"].call.timeouts.total == 3
    assert found["s"].work and found["s"].work.body.steps["s"].call
    assert found["s"].work.body.steps["s"].call.timeouts.total == 7


def test_models_are_compared_by_their_full_name_and_only_where_they_are_known():
    steps = "  a: {agent: editor, prompt: x, model: llama3.2}"

    assert steps_of(steps, models=["llama3.2:latest"])["a"].call
    assert steps_of(steps, models=None)["a"].call
    assert steps_of("  a: {agent: editor, prompt: x, model: other, backend: ollama}", models=["llama3.2:latest"])
    with pytest.raises(PipelineError, match=r"no model 'llama3\.2'"):
        steps_of(steps, models=["llama3.2:1b"])


# -- samples and choices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "select", "judge", "fields"),
    [
        ("samples: 3", "best", "critic", ("score", "issues")),
        ("samples: 3, select: best, judge: rater", "best", "rater", ("score",)),
        ("samples: 3, select: vote", "vote", None, None),
        ("samples: 3, select: merge", "merge", "editor", None),
        ("samples: 3, select: merge, output: {title: string}", "merge", "editor", ("title",)),
        ("samples: 3, select: merge, judge: critic", "merge", "critic", None),
    ],
)
def test_samples_and_who_selects_among_them(step: str, select: str, judge: str | None, fields: tuple | None):
    rater = Agent(name="rater", prompt="Rate.", output={"score": "integer(0..9)"})
    text = f"{{agent: editor, prompt: x, model: m, {step}}}"

    samples = steps_of(f"  a: {text}", agents=AGENTS | {"rater": rater})["a"].samples

    assert samples is not None
    assert (samples.count, samples.select) == (3, select)
    assert (samples.judge.agent.name if samples.judge else None) == judge
    if samples.judge is not None:
        shape = samples.judge.shape
        assert (shape.field_names() if shape else None) == fields
        assert samples.judge.model == "m"
        values = {"prompt": "ASKED", "candidate": "ONE", "candidates": ["ONE", "TWO"]}
        text = samples.judge.prompt.render(values, where="a")
        assert "ASKED" in text and "ONE" in text and ("TWO" in text) is (select == "merge")


def test_an_agent_called_judge_rates_where_there_is_one():
    judge = Agent(name="judge", prompt="Rate.", output={"score": "number"})

    samples = steps_of("  a: {agent: editor, prompt: x, samples: 2}", agents=AGENTS | {"judge": judge})["a"].samples

    assert samples and samples.judge and samples.judge.agent is judge


def test_a_choice_lists_its_options_below_the_prompt():
    step = steps_of("""\
  a:
    temperature: 0
    choose:
      prompt: |
        Sort: {{ inputs.query }}
      options:
        fact: {description: "To  know\\n something {}.", steps: [b]}
        other: {}
  b: {agent: editor, prompt: x}
""")["a"]

    assert step.kind == "choose"
    assert step.work.options == {"fact": ("b",), "other": ()}
    call = step.work.call
    assert (call.agent.name, call.temperature) == ("classifier", 0)
    assert call.shape is not None
    assert call.shape.json_schema()["properties"] == {"choice": {"enum": ["fact", "other"]}}
    assert call.prompt.render({"inputs": {"query": "Q"}}, where="a") == (
        "Sort: Q\n\nChoose one of these:\n- fact: To know something {}.\n- other"
    )
