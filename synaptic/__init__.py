"""SynapticLlamas: a graph of agents answers your question on the machines you own.

The whole public interface; everything else may change between versions. Names are imported when they are
first used, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synaptic.agents.agent import Agent as Agent
    from synaptic.backends.base import Backend as Backend
    from synaptic.backends.pool.library import Pool as Pool
    from synaptic.backends.pool.library import PoolReply as PoolReply
    from synaptic.backends.scripted import Failure as Failure
    from synaptic.backends.scripted import Reply as Reply
    from synaptic.backends.scripted import ScriptedBackend as ScriptedBackend
    from synaptic.errors import AgentError as AgentError
    from synaptic.errors import BackendBusy as BackendBusy
    from synaptic.errors import BackendError as BackendError
    from synaptic.errors import BackendUnavailable as BackendUnavailable
    from synaptic.errors import BudgetExceeded as BudgetExceeded
    from synaptic.errors import CallTimeout as CallTimeout
    from synaptic.errors import ConfigError as ConfigError
    from synaptic.errors import ContextOverflow as ContextOverflow
    from synaptic.errors import CoordinatorFailed as CoordinatorFailed
    from synaptic.errors import DownloadError as DownloadError
    from synaptic.errors import EngineCrashed as EngineCrashed
    from synaptic.errors import EngineUnavailable as EngineUnavailable
    from synaptic.errors import FirstTokenTimeout as FirstTokenTimeout
    from synaptic.errors import IdleTimeout as IdleTimeout
    from synaptic.errors import ModelFileError as ModelFileError
    from synaptic.errors import ModelNotFound as ModelNotFound
    from synaptic.errors import NoPlacement as NoPlacement
    from synaptic.errors import NotApproved as NotApproved
    from synaptic.errors import OutputError as OutputError
    from synaptic.errors import OutputInvalid as OutputInvalid
    from synaptic.errors import OutputTruncated as OutputTruncated
    from synaptic.errors import PipelineError as PipelineError
    from synaptic.errors import PoolSaturated as PoolSaturated
    from synaptic.errors import ProtocolError as ProtocolError
    from synaptic.errors import RequestRejected as RequestRejected
    from synaptic.errors import RunError as RunError
    from synaptic.errors import ServerError as ServerError
    from synaptic.errors import StepTimeout as StepTimeout
    from synaptic.errors import StreamError as StreamError
    from synaptic.errors import StreamFailed as StreamFailed
    from synaptic.errors import StreamTruncated as StreamTruncated
    from synaptic.errors import SynapticError as SynapticError
    from synaptic.errors import ToolError as ToolError
    from synaptic.errors import UsageError as UsageError
    from synaptic.messages import ChatRequest as ChatRequest
    from synaptic.messages import Chunk as Chunk
    from synaptic.messages import Message as Message
    from synaptic.messages import ModelInfo as ModelInfo
    from synaptic.messages import Usage as Usage
    from synaptic.pipeline.loader import Pipeline as Pipeline
    from synaptic.pipeline.plan import Plan as Plan
    from synaptic.pipeline.tools import Tool as Tool
    from synaptic.pipeline.tools import tool as tool
    from synaptic.runtime.approval import Approval as Approval
    from synaptic.runtime.approval import ApprovalRequest as ApprovalRequest
    from synaptic.runtime.events import ApprovalAsked as ApprovalAsked
    from synaptic.runtime.events import ApprovalGiven as ApprovalGiven
    from synaptic.runtime.events import BackendReported as BackendReported
    from synaptic.runtime.events import Event as Event
    from synaptic.runtime.events import PromptShortened as PromptShortened
    from synaptic.runtime.events import RunFinished as RunFinished
    from synaptic.runtime.events import RunResult as RunResult
    from synaptic.runtime.events import RunStarted as RunStarted
    from synaptic.runtime.events import StepContinued as StepContinued
    from synaptic.runtime.events import StepFinished as StepFinished
    from synaptic.runtime.events import StepRepaired as StepRepaired
    from synaptic.runtime.events import StepResult as StepResult
    from synaptic.runtime.events import StepRetried as StepRetried
    from synaptic.runtime.events import StepStarted as StepStarted
    from synaptic.runtime.events import TokenDelta as TokenDelta
    from synaptic.runtime.session import Session as Session
    from synaptic.runtime.session import run as run
    from synaptic.runtime.session import run_sync as run_sync
    from synaptic.runtime.session import stream_events as stream_events
    from synaptic.settings.load import Settings as Settings
    from synaptic.settings.load import load_settings as load_settings

_HOME = {
    "synaptic.agents.agent": ("Agent",),
    "synaptic.backends.base": ("Backend",),
    "synaptic.backends.pool.library": ("Pool", "PoolReply"),
    "synaptic.backends.scripted": ("Failure", "Reply", "ScriptedBackend"),
    "synaptic.settings.load": ("Settings", "load_settings"),
    "synaptic.errors": (
        "AgentError",
        "BackendBusy",
        "BackendError",
        "BackendUnavailable",
        "BudgetExceeded",
        "CallTimeout",
        "ConfigError",
        "ContextOverflow",
        "CoordinatorFailed",
        "DownloadError",
        "EngineCrashed",
        "EngineUnavailable",
        "FirstTokenTimeout",
        "IdleTimeout",
        "ModelFileError",
        "ModelNotFound",
        "NoPlacement",
        "NotApproved",
        "OutputError",
        "OutputInvalid",
        "OutputTruncated",
        "PipelineError",
        "PoolSaturated",
        "ProtocolError",
        "RequestRejected",
        "RunError",
        "ServerError",
        "StepTimeout",
        "StreamError",
        "StreamFailed",
        "StreamTruncated",
        "SynapticError",
        "ToolError",
        "UsageError",
    ),
    "synaptic.messages": ("ChatRequest", "Chunk", "Message", "ModelInfo", "Usage"),
    "synaptic.pipeline.loader": ("Pipeline",),
    "synaptic.pipeline.plan": ("Plan",),
    "synaptic.pipeline.tools": ("Tool", "tool"),
    "synaptic.runtime.approval": ("Approval", "ApprovalRequest"),
    "synaptic.runtime.events": (
        "ApprovalAsked",
        "ApprovalGiven",
        "BackendReported",
        "Event",
        "PromptShortened",
        "RunFinished",
        "RunResult",
        "RunStarted",
        "StepContinued",
        "StepFinished",
        "StepRepaired",
        "StepResult",
        "StepRetried",
        "StepStarted",
        "TokenDelta",
    ),
    "synaptic.runtime.session": ("Session", "run", "run_sync", "stream_events"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__"])  # noqa: PLE0605  (one list to keep; a test compares it with the imports above)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  (40 ms, as much as all that the help needs)

        return version("synapticllamas")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'synaptic' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
