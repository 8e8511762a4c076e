"""The keys that may stand at each place of a pipeline file, and what other tools call the same things."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_origin

import pydantic

from synaptic.pipeline.kinds import KINDS, words
from synaptic.pipeline.spec.parts import AgentSpec, BudgetSpec, CaseSpec, DefaultsSpec, ExpectSpec, InputSpec, RetrySpec
from synaptic.pipeline.spec.short_forms import OnErrorSpec, TimeoutSpec
from synaptic.pipeline.spec.spec import KIND_KEYS, PipelineSpec, StepSpec
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from synaptic.text import KeyPath

Model: TypeAlias = type[pydantic.BaseModel]

_FREE = "free"
"""Stands for a mapping whose keys are the person's own."""


_OTHER_WORDS: dict[Model, dict[str, str]] = {
    PipelineSpec: words(
        steps="nodes tasks stages jobs graph workflow",
        result="output outputs answer return returns response",
        inputs="input variables vars parameters params args arguments",
        concurrency="max_concurrency max_parallel parallel",
        conversation="history chat_history memory",
        budget="limits limit",
        defaults="default settings config",
        name="id title",
        tests="test cases test_cases",
    ),
    StepSpec: words(
        needs="depends_on depends dependencies after requires wait_for",
        foreach="loop map for_each for each with_items items over",
        when="if condition only_if",
        join="wait_mode",
        concurrency="parallel max_parallel max_concurrency parallelism",
        output="output_schema schema response_format format output_shape",
        model="llm model_name",
        retry="retries max_retries attempts",
        timeout="timeout_seconds max_time deadline",
        fallback_models="fallback fallbacks fallback_model",
        on_error="continue_on_error ignore_errors on_failure allow_failure",
        cache="caching memoize cache_ttl ttl",
        samples="n n_samples num_samples sample",
        approve="approval confirm human human_in_the_loop interrupt",
        temperature="temp",
        max_tokens="num_predict max_output_tokens",
        description="title label comment doc help",
        backend="provider engine platform",
        choose="cases branches",
        tool="script command shell code exec",
    )
    | {"params": "with", "args": "with", "arguments": "with", "inputs": "with", "input": "with", "parameters": "with"}
    | {"item_name": "as", "item": "as", "var": "as", "loop_var": "as"}
    | {word: key for kind in KINDS.values() for word, key in kind.other_words.items()},
    AgentSpec: words(
        prompt="system instructions instruction role system_prompt system_message goal backstory persona",
        output="output_schema schema response_format format",
        model="llm model_name",
        max_tokens="num_predict max_output_tokens",
        temperature="temp",
    ),
    InputSpec: words(
        choices="enum options values allowed one_of",
        minimum="min ge gte",
        maximum="max le lte",
        description="help doc title",
        default="value",
    ),
    RetrySpec: words(attempts="max max_attempts max_retries retries count times tries", on="when causes errors"),
    TimeoutSpec: words(total="seconds max call all", idle="stall", first_token="first ttft connect"),  # noqa: S106  (the first token of a reply)
    BudgetSpec: words(
        tokens="max_tokens token", calls="max_calls requests max_requests", seconds="time timeout max_seconds duration"
    ),
    CaseSpec: words(
        inputs="input with given vars variables args",
        replies="reply responses response mocks mock stubs fakes answers outputs",
        expect="expects expected expectation expectations assert asserts then want",
    ),
    ExpectSpec: words(
        result="answer output equals equal is",
        contains="contain includes include has matches",
        that="condition conditions assert asserts when if",
        fails="error fail failed raises",
    ),
    DefaultsSpec: words(
        num_ctx="context context_length ctx", model="llm", max_tokens="num_predict", retry="retries", temperature="temp"
    ),
}

for _kind in KINDS.values():
    _OTHER_WORDS.update((model, dict(others)) for model, others in _kind.models.items())

_GIVES = "what a step gives is 'steps.NAME'; what the pipeline gives stands under 'result'"
_OF_THE_AGENT = "write it into the prompt of the step's agent, under 'agents'"
_SAMPLING = "of the sampling, a step says 'temperature' and 'max_tokens', nothing else; remove it"
_SENTENCES: dict[tuple[Model, str], str] = {
    (StepSpec, "parallel"): (
        "steps that need nothing of each other run in parallel anyway; use 'foreach' to map over a list, and "
        "'concurrency' to bound it"
    ),
    (StepSpec, "loop"): "write 'foreach' to map over a list, or 'repeat' to go round until a condition holds",
    (StepSpec, "self"): "write it inside 'repeat': repeat: {self: true}",
    (StepSpec, "system"): "a step's text is its 'prompt'; a system message is the prompt of its agent, under 'agents'",
    (StepSpec, "system_prompt"): "a system message is the prompt of the step's agent, under 'agents'",
    (StepSpec, "name"): "a step's name is its key under 'steps'",
    (StepSpec, "id"): "a step's name is its key under 'steps'",
    (StepSpec, "type"): f"a step's kind is the key that it has: {', '.join(KIND_KEYS[:-1])} or {KIND_KEYS[-1]}",
    (StepSpec, "race"): "write a step that refers to those that race, with 'join: first'",
    (StepSpec, "max_iterations"): "write 'repeat: {max: N, steps: …}'",
    (StepSpec, "max_rounds"): "write 'repeat: {max: N, steps: …}'",
    (StepSpec, "then"): "the step itself is what runs when its condition holds; 'choose' has several",
    (StepSpec, "else"): "write another step with 'when: not (…)', or 'choose'",
    (StepSpec, "before"): "write 'needs' in the step that comes later",
    (StepSpec, "save_as"): _GIVES,
    (StepSpec, "return"): _GIVES,
    (StepSpec, "result"): _GIVES,
    (StepSpec, "collect"): "a step with 'foreach' gives the list of what its calls gave",
    (StepSpec, "stream"): "every answer streams; remove it",
    (StepSpec, "memory"): "write 'conversation' beside 'steps'",
    (StepSpec, "history"): "write 'conversation' beside 'steps'",
    (StepSpec, "budget"): "write it beside 'steps'",
    (StepSpec, "goal"): _OF_THE_AGENT,
    (StepSpec, "backstory"): _OF_THE_AGENT,
    (StepSpec, "top_p"): _SAMPLING,
    (StepSpec, "top_k"): _SAMPLING,
    (StepSpec, "stop"): _SAMPLING,
    (StepSpec, "seed"): _SAMPLING,
    (StepSpec, "ignore_errors"): "write 'on_error: skip'",
    (StepSpec, "continue_on_error"): "write 'on_error: skip'",
    (StepSpec, "retries"): "write 'retry: {attempts: N}'",
    (StepSpec, "max_retries"): "write 'retry: {attempts: N}'",
    (StepSpec, "unless"): "write 'when: not (…)'",
    (StepSpec, "num_ctx"): "write it under the pipeline's 'defaults'",
    (PipelineSpec, "model"): "write it under 'defaults'",
    (PipelineSpec, "temperature"): "write it under 'defaults'",
    (PipelineSpec, "max_tokens"): "write it under 'defaults'",
    (PipelineSpec, "num_ctx"): "write it under 'defaults'",
    (PipelineSpec, "timeout"): "write it under 'defaults'",
    (PipelineSpec, "retry"): "write it under 'defaults'",
    (PipelineSpec, "edges"): "there are no edges: a step waits for the steps that its prompt refers to; 'needs' adds",
    (PipelineSpec, "api_key"): "keys stand in the settings, never in a pipeline",
    (CaseSpec, "name"): "a test's name is its key under 'tests'",
    (CaseSpec, "id"): "a test's name is its key under 'tests'",
    (InputSpec, "optional"): "inputs are optional unless they say 'required: true'",
}


def known_keys(path: KeyPath) -> tuple[str, ...]:
    """Return the keys that may stand in the mapping at ``path`` of a pipeline file; none where they are free."""
    model = _model_at(path)
    return () if model is None else _keys_of(model)


def advice_for(key: str, path: KeyPath) -> tuple[str, str | None]:
    """Return what to write instead of the unknown ``key`` of the mapping at ``path``, and the key that is meant."""
    model = _model_at(path)
    if model is None:
        return "remove it", None
    if model is PipelineSpec and key.startswith(("x-", ".")):  # where other tools keep what is used several times
        return "write '&name' before its value where that stands first, and '*name' where it is meant again", None
    meant = _OTHER_WORDS.get(model, {}).get(key.lower().replace("-", "_"))
    sentence = _SENTENCES.get((model, key.lower()))
    if sentence is not None:
        return sentence, meant
    if meant is not None:
        return f"write {meant!r}", meant
    suggestion = did_you_mean(key, _keys_of(model))
    likely = suggestion.removeprefix("did you mean '").removesuffix("'?") if "did you mean" in suggestion else None
    return suggestion, likely


@cache
def _keys_of(model: Model) -> tuple[str, ...]:
    if model is OnErrorSpec:
        return ("use",)
    return tuple(info.alias or name for name, info in model.model_fields.items())


def _model_at(path: KeyPath) -> Model | None:
    """Return the model of the mapping at ``path``, or ``None`` where there is none."""
    here: Any = PipelineSpec
    for part in path:
        if isinstance(here, type) and issubclass(here, pydantic.BaseModel):
            here = _member(here, part)
        else:
            here = here[1] if isinstance(here, tuple) else None
    return here if isinstance(here, type) and issubclass(here, pydantic.BaseModel) else None


@cache
def _member(model: Model, key: str | int) -> Any:
    """Return what the value of ``key`` is: a model, ``("free", model)`` for a mapping of them, or ``None``."""
    for name, info in model.model_fields.items():
        if (info.alias or name) == key:
            return _mapping_or_model(info.annotation)
    return None


def _mapping_or_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        inner = _mapping_or_model(arguments[1])
        return None if inner is None else (_FREE, inner)
    return next((found for part in arguments if (found := _mapping_or_model(part)) is not None), None)
