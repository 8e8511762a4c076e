"""Every name that goes out: OpenTelemetry's conventions for generative AI, and our own below ``synaptic.``.

The conventions are those of the schema :data:`VERSION`; all of them are still "development", and the constants of the
Python package are deprecated since the conventions have a repository of their own, so that this table is what follows
them. A test holds it against the names that the package has.
"""

from __future__ import annotations

from typing import Final, NamedTuple

VERSION: Final = "1.44.0"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{VERSION}"
SCOPE: Final = "synaptic"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
WORKFLOW: Final = "gen_ai.workflow.name"
AGENT: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
TOOL: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
REQUEST_MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_P: Final = "gen_ai.request.top_p"
TOP_K: Final = "gen_ai.request.top_k"
FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
SEED: Final = "gen_ai.request.seed"
STOP: Final = "gen_ai.request.stop_sequences"
STREAM: Final = "gen_ai.request.stream"
OUTPUT_TYPE: Final = "gen_ai.output.type"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  (the name of an attribute)
INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
OTHER_ERROR: Final = "_OTHER"
"""The type of an error of which only the words are known."""

CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
EXECUTE_TOOL: Final = "execute_tool"

RUN_ID: Final = "synaptic.run.id"
RUN_STATUS: Final = "synaptic.run.status"
STEP_PATH: Final = "synaptic.step.path"
STEP_KIND: Final = "synaptic.step.kind"
STEP_STATUS: Final = "synaptic.step.status"
STOP_REASON: Final = "synaptic.stop_reason"
ATTEMPT: Final = "synaptic.attempt"
NODE: Final = "synaptic.node"
REUSED: Final = "synaptic.reused"
API: Final = "synaptic.api"
CONTINUED: Final = "synaptic.continued"

CONTENT: Final = frozenset({INSTRUCTIONS, INPUT_MESSAGES, OUTPUT_MESSAGES, TOOL_ARGUMENTS, TOOL_RESULT})
"""What people and models wrote; bounded where it is made."""


class Metric(NamedTuple):
    """A histogram, with the bounds of its buckets that the conventions ask for."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...]


_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TO_FIRST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

TOKEN_USAGE: Final = Metric(
    "gen_ai.client.token.usage",
    "{token}",
    "Tokens of a call, as the server counts them.",
    tuple(float(4**power) for power in range(14)),
)
DURATION: Final = Metric("gen_ai.client.operation.duration", "s", "From the beginning of a call to its end.", _SECONDS)
TO_FIRST_CHUNK: Final = Metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "From the beginning of a call to the first piece of its reply.",
    _TO_FIRST,
)
REQUEST_DURATION: Final = Metric(
    "gen_ai.server.request.duration", "s", "From the beginning of a client's call of the gateway to its end.", _SECONDS
)
TO_FIRST_TOKEN: Final = Metric(
    "gen_ai.server.time_to_first_token",
    "s",
    "From the beginning of a client's call of the gateway to the first piece of its reply.",
    _TO_FIRST,
)
METRICS: Final = (TOKEN_USAGE, DURATION, TO_FIRST_CHUNK, REQUEST_DURATION, TO_FIRST_TOKEN)
