"""The settings themselves: every field with its type, its bounds, its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from synaptic.errors import ConfigError
from synaptic.settings.alias_names import AliasModels, check_aliases
from synaptic.settings.endpoints import (
    COLLECTOR_PORT,
    COORDINATOR_PORT,
    PLAIN_ERROR,
    NodeSettings,
    RpcBackendSettings,
    address,
    custom,
)
from synaptic.settings.frozen import Frozen
from synaptic.shared_bounds import LONGEST_CONTEXT, LONGEST_REPLY, Overflow

__all__ = [
    "DUPLICATE_ERROR",
    "PLAIN_ERROR",
    "FieldKind",
    "Look",
    "NodeSettings",
    "RpcBackendSettings",
    "Settings",
    "field_kind",
    "table_fields",
]

Look: TypeAlias = Literal["auto", "light", "dark", "none"]

DUPLICATE_ERROR: Final = "synaptic_duplicate"

WHERE_LISTED = "'synaptic config show' lists all that there are"
DEFAULT_FIRST_TOKEN_SECONDS = 300.0
DEFAULT_IDLE_SECONDS = 60.0
DEFAULT_CALL_SECONDS = 7200.0
DEFAULT_RETRIES = 2
DEFAULT_POOL_QUEUE = 10_000
DEFAULT_POOL_WAIT_SECONDS = 600.0
DEFAULT_POOL_RECOVERY_SECONDS = 30.0
DEFAULT_FAILOVERS = 2
DEFAULT_CONTEXT_TOKENS = 4096
MOST_THREADS = 512
"""``GGML_MAX_N_THREADS``: with more, ggml ends the process."""

DEFAULT_KEEP_ALIVE = "5m"
DEFAULT_EMBEDDED_PARALLEL = 4
DEFAULT_WORKER_RETURN_SECONDS = 5.0
DEFAULT_WORKER_RECOVERY_SECONDS = 300.0
DEFAULT_COORDINATOR_IDLE_SECONDS = 900.0
DEFAULT_TENSOR_CACHE_GIB = 50.0
DEFAULT_JOURNAL_BYTES = 1_000_000_000

# What Ollama reads: a whole number of seconds, or Go's durations; a minus sign keeps the model for ever.
_KEEP_ALIVE = r"^-?(?:[0-9]+|(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|\u00b5s|ms|s|m|h))+)$"


class Settings(Frozen):
    """What a person can choose, validated; equal whatever source it came from."""

    model: str | None = Field(
        default=None,
        min_length=1,
        description="Model for every agent that names none; without one, what the backend has.",
        examples=["llama3.1:8b"],
    )
    agent_models: dict[str, str] = Field(
        default_factory=dict,
        description="Model of single agents, by agent name.",
        examples=[{"editor": "llama3.1:70b"}],
    )
    pipeline: str | None = Field(
        default=None,
        min_length=1,
        description="Pipeline that answers a question: a built-in name or a path; without it, `research`, but `answer` "
        "with the embedded backend's own small model.",
        examples=["research"],
    )
    pipeline_inputs: dict[str, Any] = Field(
        default_factory=dict,
        description="Inputs of pipelines, applied where the pipeline declares them.",
        examples=[{"rounds": 2}],
    )
    backend: str | None = Field(
        default=None,
        min_length=1,
        description="Use the backend of this name whatever else is set; see the table of backends.",
        examples=["embedded"],
    )
    task_distribution_enabled: bool = Field(
        default=True, strict=True, description="Spread whole calls over the nodes.", examples=[True]
    )
    distributed_inference_enabled: bool = Field(
        default=False,
        strict=True,
        description="Spread the layers of a model that fits no node over the RPC workers.",
        examples=[True],
    )
    nodes: list[NodeSettings] = Field(
        default_factory=list,
        description="The Ollama endpoints of the pool.",
        examples=[[{"url": "http://127.0.0.1:11434"}]],
    )
    pool_queue: int = Field(
        default=DEFAULT_POOL_QUEUE,
        ge=1,
        strict=True,
        description="Calls of one model that may wait for a node; one more is refused.",
        examples=[1000],
    )
    pool_max_wait: float | None = Field(
        default=DEFAULT_POOL_WAIT_SECONDS,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds that a call waits for a free place on a node; without it, for ever.",
        examples=[600],
    )
    pool_recovery_wait: float = Field(
        default=DEFAULT_POOL_RECOVERY_SECONDS,
        ge=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds that a call waits while every node that could serve it is down.",
        examples=[30],
    )
    failovers: int = Field(
        default=DEFAULT_FAILOVERS,
        ge=0,
        le=10,
        strict=True,
        description=(
            "How often a pool sends a call again that a node has failed: to another node, else after a pause to the "
            "same one."
        ),
        examples=[2],
    )
    hedge: bool = Field(
        default=False,
        strict=True,
        description="Send a call whose first token is late to a second node too; the first to answer serves it.",
        examples=[True],
    )
    rpc_backends: list[RpcBackendSettings] = Field(
        default_factory=list,
        description="The llama.cpp RPC workers of distributed inference.",
        examples=[[{"host": "10.0.0.4", "port": 50052}]],
    )
    public_workers: list[str] = Field(
        default_factory=list,
        description="Names and addresses outside private networks that workers may have, or listen at.",
        examples=[["203.0.113.7"]],
    )
    coordinator_url: str | None = Field(
        default=None,
        description="Address of the coordinator (`llama-server`); port 18080 where an `http` address names none.",
        examples=["http://127.0.0.1:18080"],
    )
    local_workers: int | None = Field(
        default=None,
        ge=0,
        le=15,
        strict=True,
        description="RPC workers to start on this machine; without it, one if `rpc_backends` names none.",
        examples=[1],
    )
    local_worker_threads: int | None = Field(
        default=None,
        ge=1,
        le=MOST_THREADS,
        strict=True,
        description="Threads of each of them; without it, they share the cores.",
        examples=[4],
    )
    local_worker_memory_gib: float | None = Field(
        default=None,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="GiB that layers may take in each of them; without it, they share what is available.",
        examples=[8],
    )
    distributed_context: int = Field(
        default=DEFAULT_CONTEXT_TOKENS,
        ge=256,
        le=LONGEST_CONTEXT,
        strict=True,
        description="Context of distributed inference, in tokens per parallel call.",
        examples=[8192],
    )
    distributed_parallel: int | None = Field(
        default=None,
        ge=1,
        le=64,
        strict=True,
        description="Calls that a coordinator serves at once; without it, as many as the pipeline is wide, 4 to 16.",
        examples=[8],
    )
    model_replicas: int = Field(
        default=1,
        ge=1,
        le=15,
        strict=True,
        description="Coordinators of one model, each over workers of its own; fewer where they do not hold so many.",
        examples=[2],
    )
    drafts: bool = Field(
        default=True,
        strict=True,
        description="Draft tokens where a text repeats another, and check several at once, as long as that pays.",
        examples=[False],
    )
    prewarm: list[str] = Field(
        default_factory=list,
        description="Models that distributed inference loads at start, the first ones first.",
        examples=[["llama3.1:70b"]],
    )
    coordinator_idle: float | None = Field(
        default=DEFAULT_COORDINATOR_IDLE_SECONDS,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds without a call after which a coordinator frees the memory of its workers; null is never.",
        examples=[900],
    )
    worker_return_wait: float = Field(
        default=DEFAULT_WORKER_RETURN_SECONDS,
        ge=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds that a lost worker has to come back in, before its layers go to the others.",
        examples=[5],
    )
    worker_recovery_wait: float = Field(
        default=DEFAULT_WORKER_RECOVERY_SECONDS,
        ge=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds that calls wait for a lost worker without which the model does not fit.",
        examples=[300],
    )
    ray_address: str | None = Field(
        default=None,
        min_length=1,
        description="The Ray cluster whose nodes are workers, and run `batch --ray`: `host:port` of its head, `auto` "
        "for the one of this machine, `local` for one that is started here.",
        examples=["10.0.0.4:6379"],
    )
    ray_worker_memory_gib: float | None = Field(
        default=None,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="GiB that are reserved on each node of it for layers; without it, four fifths of what is free.",
        examples=[8],
    )
    tensor_cache_gib: float = Field(
        default=DEFAULT_TENSOR_CACHE_GIB,
        ge=0,
        strict=True,
        allow_inf_nan=False,
        description="GiB of tensors that workers started here keep on disk for the next start; 0 keeps none.",
        examples=[50],
    )
    first_token_timeout: float | None = Field(
        default=DEFAULT_FIRST_TOKEN_SECONDS,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds from a call to its first token; covers loading a cold model, and waiting for a server "
        "that is not ready yet or busy. Where the server tells that it reads the prompt (`llama-server`, and so the "
        "embedded engine and distributed inference), that is no silence.",
        examples=[300],
    )
    idle_timeout: float | None = Field(
        default=DEFAULT_IDLE_SECONDS,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds without a token after which a call is given up.",
        examples=[60],
    )
    call_timeout: float | None = Field(
        default=DEFAULT_CALL_SECONDS,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="Seconds that a whole call may take; null is without a bound.",
        examples=[600],
    )
    retries: int = Field(
        default=DEFAULT_RETRIES,
        ge=0,
        le=10,
        strict=True,
        description=(
            "How often a call that has failed is sent again. A pool counts by itself what it does before that "
            "(`failovers`); with both at 0 a call is sent once."
        ),
        examples=[2],
    )
    max_parallel: int | None = Field(
        default=None,
        ge=1,
        strict=True,
        description="Calls of one run at once; without it, as many as the backend takes.",
        examples=[4],
    )
    model_parallel: dict[str, Annotated[int, Field(ge=1, strict=True)]] = Field(
        default_factory=dict,
        description="Calls of single models at once, by model name; of all runs and clients of `serve` together.",
        examples=[{"llama3.1:70b": 1}],
    )
    aliases: dict[str, AliasModels] = Field(
        default_factory=dict,
        description="Names under which `serve` offers the first of several models that is there and answers.",
        examples=[{"fast": ["qwen3:8b", "llama3.2"]}],
    )
    num_ctx: int | None = Field(
        default=DEFAULT_CONTEXT_TOKENS,
        ge=256,
        le=LONGEST_CONTEXT,
        strict=True,
        description="Context in tokens that Ollama is asked for at least: a model that is loaded with more, or whose "
        "Modelfile says more, is asked for that. `null`: the server decides.",
        examples=[8192],
    )
    keep_alive: str | None = Field(
        default=DEFAULT_KEEP_ALIVE,
        pattern=_KEEP_ALIVE,
        description="How long Ollama keeps a model loaded after a call; `-1` for ever, `0` not at all.",
        examples=["5m"],
    )
    think: bool | None = Field(
        default=None,
        strict=True,
        description="Ask reasoning models to think, or not to; without it, the model decides (in Ollama, it thinks).",
        examples=[False],
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        strict=True,
        allow_inf_nan=False,
        description="Sampling temperature of agents that name none.",
        examples=[0.2],
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST_REPLY,
        strict=True,
        description="Most tokens of a reply in prose where neither its step nor an agent of yours names a limit; "
        "without it, the agent's, or 1024.",
        examples=[1024],
    )
    overflow: Overflow = Field(
        default="summarise",
        description="What happens to a prompt that does not fit the context, where its step does not say: `summarise`, "
        "`truncate_oldest` (the data in it loses its beginning) or `error`.",
        examples=["summarise"],
    )
    journal: Literal["off", "normal", "full"] = Field(
        default="normal",
        description="Whether runs are recorded: `normal` (the last moments before a power cut may be missing), `full` "
        "(each step waits for the disk) or `off`.",
        examples=["normal"],
    )
    journal_max_bytes: int | None = Field(
        default=DEFAULT_JOURNAL_BYTES,
        ge=1_000_000,
        strict=True,
        description="Bytes that the record of runs may take; the oldest runs go first, but those that are pinned. "
        "`null` is without a bound.",
        examples=[1_000_000_000],
    )
    telemetry: Literal["off", "otlp"] = Field(
        default="off",
        description="Whether runs are told to a collector of OpenTelemetry, which takes the extra `otel`: `otlp` (over "
        "HTTP) or `off`.",
        examples=["otlp"],
    )
    telemetry_endpoint: str | None = Field(
        default=None,
        description="Address of that collector; without it, what `OTEL_EXPORTER_OTLP_ENDPOINT` and its kind say, else "
        "port 4318 of this machine.",
        examples=["http://127.0.0.1:4318"],
    )
    telemetry_content: bool = Field(
        default=False,
        strict=True,
        description="Whether the collector gets prompts and answers, too.",
        examples=[True],
    )
    markdown: bool = Field(
        default=True,
        strict=True,
        description="Whether a terminal shows answers as rendered Markdown; else as the model wrote them.",
        examples=[False],
    )
    theme: Look = Field(
        default="auto",
        description="Colours of answers, for a background that is `light` or `dark`; `none` has no colour, `auto` "
        "takes what the terminal says of itself.",
        examples=["light"],
    )
    editing: Literal["emacs", "vi"] = Field(
        default="emacs",
        description="Keys with which a line at the prompt is edited.",
        examples=["vi"],
    )
    embedded_model: str | None = Field(
        default=None,
        min_length=1,
        description="Path of a GGUF file that the embedded backend serves instead of its own small model.",
        examples=["~/models/qwen2.5-7b.gguf"],
    )
    embedded_parallel: int = Field(
        default=DEFAULT_EMBEDDED_PARALLEL,
        ge=1,
        le=64,
        strict=True,
        description="Calls that the embedded backend serves at once.",
        examples=[4],
    )
    embedded_threads: int | None = Field(
        default=None,
        ge=1,
        le=MOST_THREADS,
        strict=True,
        description="Threads of the embedded backend; without it, the engine decides.",
        examples=[4],
    )
    embedded_context: int | None = Field(
        default=None,
        ge=256,
        le=LONGEST_CONTEXT,
        strict=True,
        description="Context of the embedded backend, in tokens per parallel call; without it, the model's own, as far "
        "as memory allows.",
        examples=[4096],
    )

    @property
    def look(self) -> Look | None:
        """How answers look on a terminal; ``None`` is as the model wrote them."""
        return self.theme if self.markdown else None

    @field_validator("agent_models")
    @classmethod
    def _named_models(cls, value: dict[str, str]) -> dict[str, str]:
        if "" in value:
            raise custom(ConfigError("names a model for no agent", hint="write the agent's name"))
        if "" in value.values():
            raise custom(ConfigError("must not be empty", hint="write the model's name, or remove the agent"))
        return value

    @field_validator("aliases")
    @classmethod
    def _sound_aliases(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        try:
            check_aliases(value)
        except ConfigError as exc:
            raise custom(exc) from exc
        return value

    @field_validator("coordinator_url")
    @classmethod
    def _normal_coordinator(cls, value: str | None) -> str | None:
        return None if value is None else address(value, COORDINATOR_PORT)

    @field_validator("telemetry_endpoint")
    @classmethod
    def _normal_collector(cls, value: str | None) -> str | None:
        return None if value is None else address(value, COLLECTOR_PORT)

    @field_validator("keep_alive", mode="before")
    @classmethod
    def _seconds_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("nodes")
    @classmethod
    def _different_nodes(cls, value: list[NodeSettings]) -> list[NodeSettings]:
        _refuse_twins([node.url for node in value])
        return value

    @field_validator("rpc_backends")
    @classmethod
    def _different_workers(cls, value: list[RpcBackendSettings]) -> list[RpcBackendSettings]:
        _refuse_twins([f"{worker.host}:{worker.port}" for worker in value])
        return value


@dataclass(frozen=True, slots=True)
class FieldKind:
    """What a field holds: its type without ``None``, and whether ``None`` is allowed."""

    base: type
    optional: bool


def field_kind(annotation: Any) -> FieldKind:
    """Return the kind of a field of these models from its annotation (``T``, ``T | None``, ``list[T]``, ...)."""
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    optional = type(None) in get_args(annotation)
    inner = arguments[0] if optional else annotation
    origin = get_origin(inner)
    return FieldKind(str if origin is Literal else origin or inner, optional)


def table_fields() -> frozenset[str]:
    """Return the settings that are tables, whose entries may be given one by one."""
    return frozenset(name for name, info in Settings.model_fields.items() if field_kind(info.annotation).base is dict)


def _refuse_twins(addresses: list[str]) -> None:
    twins = [(index, addresses.index(address)) for index, address in enumerate(addresses)]
    repeated = [(index, first) for index, first in twins if first != index]
    if repeated:
        raise PydanticCustomError(
            DUPLICATE_ERROR, "the same address stands twice", {"repeated": repeated, "addresses": addresses}
        )
