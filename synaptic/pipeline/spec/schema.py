"""The JSON Schema of a pipeline file (draft 2020-12), for editors: completion, hover text, mistakes while typing.

It is made from the models that the loader reads with, so the two cannot drift apart. It is never stricter than the
loader; what JSON Schema cannot say (templates, references, the inside of ``list[…]``) is left to ``validate``.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from synaptic.agents import FIELD_LIMIT
from synaptic.pipeline.kinds import KINDS, present
from synaptic.pipeline.spec import parts, short_forms, spec

if TYPE_CHECKING:
    import pydantic

Json: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER: Final = "urn:synapticllamas:pipeline:1"

_GO_TOGETHER: Final = {
    **{kind.key: kind.needs for kind in KINDS.values() if kind.needs is not None},
    "as": "foreach",
    "concurrency": "foreach",
    "select": "samples",
    "judge": "samples",
}
_WRITTEN: Final = {"inputs": "with"}
_ROOTS: Final = ("inputs", "steps", "run", "previous")

_LISTED: Final[tuple[type[pydantic.BaseModel], ...]] = (
    spec.PipelineSpec,
    parts.InputSpec,
    parts.RetrySpec,
    parts.DefaultsSpec,
    parts.AgentSpec,
    parts.BudgetSpec,
    parts.CaseSpec,
    parts.ExpectSpec,
    spec.StepSpec,
    short_forms.TimeoutSpec,
    *(model for kind in KINDS.values() for model in kind.models),
)
_MODELS: Final = {model.__name__: model for model in _LISTED}

# Keys that explain themselves to a reader of the models, but not to a person who meets them in an editor.
_DESCRIPTIONS: Final[dict[str, str]] = {
    "description": "One line for people who read it.",
    "model": "Name of the model, as the backend calls it.",
    "temperature": "0 to 2; the higher, the more varied the reply.",
    "max_tokens": "Longest reply, in tokens.",
    "num_ctx": "Context length in tokens that models are served with.",
    "timeout": "Bounds in seconds: a number for the whole call, or `total`, `idle` and `first_token`.",
    "retry": "How often a call is tried, and after which failures.",
    "overflow": "What happens to a prompt that does not fit the model's context: the step fails, the data in it loses "
    "its beginning, or the data is summarised.",
    "output": "Output shape: field names with types, such as `score: number(0..1)` or `facts: list[string]`.",
    "InputSpec.type": "Type of the value. `file` and `files` are read when the run begins.",
    "InputSpec.required": "Whether a run without it is refused.",
    "InputSpec.default": "Value of an input that is not given.",
    "InputSpec.minimum": "Least value of a number.",
    "InputSpec.maximum": "Greatest value of a number.",
    "AgentSpec.prompt": "The agent's instructions: the system message of its calls.",
    "BudgetSpec.seconds": "From the start of the run to its end.",
    "ChooseSpec.prompt": "What is to be classified; a template.",
    "ChooseSpec.options": "Label -> when to choose it; or a mapping of `description` and `steps`.",
    "ChooseSpec.agent": "The agent that chooses.",
    "RepeatSpec.steps": "The steps of a round; they see `previous`, the outputs of the round before.",
    "RepeatSpec.keep": "Which round is the result: the one with the best `score`, or the last.",
    "StepSpec.repeat": "A bounded loop: over steps of its own, or over this step (`self: true`).",
    "StepSpec.backend": "The backend that serves this step's calls.",
    "StepSpec.fallback_models": "Asked in this order once the model has failed for good.",
    "StepSpec.select": "What becomes of the samples.",
    "StepSpec.priority": "Of steps that could start, the one with the higher number goes first.",
    "StepSpec.on_error": "What a failure means: the run fails, the step is skipped, or another step takes over.",
    "PipelineSpec.version": "Version of the language: 1.",
    "PipelineSpec.name": "Name of the pipeline: small letters, digits and `_`, first a letter.",
    "PipelineSpec.inputs": "Name -> what a run is given; templates say `inputs.NAME`.",
    "PipelineSpec.defaults": "What holds for every step that does not say otherwise itself, nor does its agent.",
    "PipelineSpec.agents": "Name -> agent of this pipeline alone.",
    "PipelineSpec.budget": "What one run may use at most.",
    "PipelineSpec.tests": "Name -> test: inputs, replies of steps, what is expected. `pipelines test` runs them.",
    "PipelineSpec.steps": "Name -> step. A step waits for the steps that it refers to, and for nothing else.",
}

# Defaults that the models hold in their long form, as people write them.
_SHORT_DEFAULTS: Final[Json] = {"on_error": "fail", "cache": False, "approve": False}

_NOT_BLANK: Final[Json] = {"pattern": r"\S"}
_POSITIVE: Final[Json] = {"type": "number", "exclusiveMinimum": 0}
_NAME: Final[Json] = {"type": "string", "pattern": short_forms.IDENTIFIER, "maxLength": 64}
# A scalar with its bounds, or the beginning of a list, an enum or an object. What is inside these, no regular
# expression can tell.
_TYPE_PATTERN: Final = (
    r"^\s*(?:(?:string|integer|number)\s*(?:\([^()\[\]{}]*\))?\s*$|boolean\s*$|list\s*\[|enum\s*\(|\{)"
)
_HOW_WRITTEN: Final = re.compile(r"[;,] written `[^`]*`")  # the schema has the key as it is written
_FIELD_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_]{0,63}\??$"


def pipeline_schema() -> Json:
    """Return the JSON Schema of a pipeline file, as plain data."""
    raw = spec.PipelineSpec.model_json_schema(by_alias=True)
    definitions = raw.pop("$defs")
    definitions["PipelineSpec"] = raw
    clean = {name: _definition(name, found) for name, found in definitions.items() if name in _MODELS}
    _restrict_step(clean["StepSpec"])
    for kind in KINDS.values():
        kind.refine(clean)
    root = clean.pop("PipelineSpec")
    named: Json = {_short(name): clean[name] for name in sorted(clean)} | {"output": _output()}
    return {
        "$schema": DIALECT,
        "$id": IDENTIFIER,
        "title": "SynapticLlamas pipeline",
        **root,
        "$defs": named,
    }


def _definition(name: str, found: Json) -> Json:
    """Return one model's schema with a description of every key."""
    model = _MODELS[name]
    about, keys = documented(model)
    properties: Json = {}
    for key, value in found["properties"].items():
        field = next(field for field, info in model.model_fields.items() if (info.alias or field) == key)
        text = keys.get(field) or _DESCRIPTIONS.get(f"{name}.{key}") or _DESCRIPTIONS.get(key, "")
        properties[key] = {**({"description": text} if text else {}), **_property(key, value)}
    required = {"required": found["required"]} if "required" in found else {}
    return {
        "description": about,
        "type": "object",
        "properties": properties,
        **required,
        "additionalProperties": False,
    }


def _property(key: str, value: Json) -> Json:
    """Return the schema of one key's value as people write it."""
    if key == "output":
        return {"anyOf": [{"$ref": "#/$defs/output"}, {"type": "null"}]}
    clean: Json = _value({part: inner for part, inner in value.items() if part != "default"})
    default = _SHORT_DEFAULTS.get(key, value.get("default"))
    if default is not None and default != "" and not isinstance(default, dict):
        clean["default"] = default
    return clean


def _value(value: Any) -> Any:
    """Return a schema without titles, with short forms, and with names of mappings checked."""
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _reference(value["$ref"])
    clean = {key: _value(inner) for key, inner in value.items() if key != "title"}
    if "patternProperties" in clean:
        clean["additionalProperties"] = False
    if clean.get("additionalProperties") is True:
        del clean["additionalProperties"]
    if clean.get("pattern") == short_forms.IDENTIFIER:
        clean = {**clean, **_NAME}
    elif "[smhd]" in clean.get("pattern", ""):
        clean["pattern"] = r"^(?=[0-9]{1,9}[smhd]$)0*[1-9]"
    return _or_null(clean)


def _reference(reference: str) -> Json:
    """Return a reference, with the short form of what it refers to, where that has one."""
    name = reference.rpartition("/")[2]
    target = {"$ref": f"#/$defs/{_short(name)}"}
    short = {"TimeoutSpec": _POSITIVE, "OptionSpec": {"type": "string"}}.get(name)
    return target if short is None else {"anyOf": [short, target]}


def _or_null(value: Json) -> Json:
    """Return ``{"type": ["string", "null"]}`` for one of two that pydantic writes as alternatives."""
    something, *others = value.get("anyOf", ({},))
    if others != [{"type": "null"}] or not isinstance(something.get("type"), str):
        return value
    first: Json = {**something, "type": [something["type"], "null"]}
    if "enum" in first:
        first["enum"] = [*first["enum"], None]
    return {**{key: inner for key, inner in value.items() if key != "anyOf"}, **first}


def _restrict_step(step: Json) -> None:
    """Say that a step has exactly one kind of work. A key that is there but empty (``agent:``) counts as absent."""
    kinds = KINDS.values()
    step["oneOf"] = [kind.present() for kind in kinds]
    no_call = {"not": {"anyOf": [present(kind.key) for kind in kinds if kind.calls_model]}}
    total_only = {"properties": {"idle": {"type": "null"}, "first_token": {"type": "null"}}}
    takers = {field: [kind.key for kind in kinds if field in kind.takes] for kind in kinds for field in kind.takes}
    step["allOf"] = [
        *(
            _if(_WRITTEN.get(field, field), {"anyOf": [present(key) for key in keys]})
            for field, keys in sorted(takers.items())
        ),
        *(_if(key, present(other)) for key, other in _GO_TOGETHER.items()),
        *(rule for kind in kinds for rule in kind.rules()),
        _if("judge", {"properties": {"select": {"not": {"const": "vote"}}}}),
        {"if": no_call, "then": {"properties": {"timeout": total_only, "approve": {"enum": [True, False, "output"]}}}},
        {"properties": {"as": {"not": {"enum": list(_ROOTS)}}, "retry": {"properties": {"on": {"minItems": 1}}}}},
        {"properties": dict.fromkeys(("prompt", "model", "backend"), _NOT_BLANK)},
    ]


def _if(key: str, then: Json) -> Json:
    return {"if": present(key), "then": then}


def _output() -> Json:
    """Return the schema of an output shape: what of the notation a regular expression can tell."""
    return {
        "description": "Output shape: field name -> type. A question mark after a name makes the field optional.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": FIELD_LIMIT,
        "propertyNames": {"pattern": _FIELD_PATTERN},
        "additionalProperties": {
            "description": "`string(..80)`, `integer(1..9)`, `number(0..1)`, `boolean`, `enum(yes, no)`, "
            "`list[string](..5)`, `{name: string}`, or a mapping.",
            "anyOf": [{"type": "string", "pattern": _TYPE_PATTERN}, {"$ref": "#/$defs/output"}],
        },
    }


def documented(model: type[pydantic.BaseModel]) -> tuple[str, dict[str, str]]:
    """Return what a model's docstring says of the whole, and of each field under ``Attributes``; as Markdown.

    The fields that a model has from others are described there.
    """
    about, found = "", {}
    for owner in reversed(model.__mro__[: model.__mro__.index(short_forms.Strict)]):
        text = inspect.cleandoc(vars(owner).get("__doc__") or "").replace("``", "`")
        about, _, attributes = text.partition("\nAttributes:\n")
        for part in re.split(r"\n {4}(?! )", "\n" + attributes.rstrip()):
            name, colon, meaning = part.partition(":")
            if colon:
                found[name.strip()] = _HOW_WRITTEN.sub("", " ".join(meaning.split()))
    return " ".join(about.split()), found


def _short(name: str) -> str:
    return name.removesuffix("Spec").lower()
