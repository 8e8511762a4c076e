"""What a test answers in the place of models, tools, used pipelines and people; nothing is ever made up."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import (
    BackendBusy,
    BackendUnavailable,
    CallTimeout,
    EngineCrashed,
    RequestRejected,
    RunError,
    ServerError,
    StreamTruncated,
    ToolRaised,
)
from synaptic.pipeline import FAILS, every_step, is_failure
from synaptic.runtime.approval import Approval
from synaptic.runtime.step_paths import declared_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from synaptic.errors import BackendError, SynapticError
    from synaptic.messages import ChatRequest
    from synaptic.pipeline import CompiledStep, Graph
    from synaptic.runtime.approval import ApprovalRequest

_ABSENT: Final = object()
_ERRORS: Final[Mapping[str, tuple[type[BackendError], str]]] = {
    "unavailable": (BackendUnavailable, "nothing answers"),
    "busy": (BackendBusy, "the server is busy"),
    "server": (ServerError, "the server failed"),
    "stream": (StreamTruncated, "the stream was cut"),
    "timeout": (CallTimeout, "the call took too long"),
    "crash": (EngineCrashed, "the engine died"),
    "rejected": (RequestRejected, "the request was rejected"),
}
_UNUSABLE: Final = {False: "", True: "no JSON"}
"""A reply of the wrong form, where no shape is asked for, and where one is."""


class CaseScript:
    """The replies of one test, while they are given.

    Args:
        replies: By the path of a step: one reply for all of its calls, or a list with one for each.
        graph: The steps.

    Attributes:
        missing: What was asked for and is not there, by the path that is to be written, with what to write.
    """

    def __init__(self, replies: Mapping[str, Any], graph: Graph) -> None:
        self._replies = replies
        self._steps = dict(every_step(graph))
        self._turns: Counter[str] = Counter()
        self.missing: dict[str, str] = {}

    def answer(self, request: ChatRequest) -> Any:
        """Return what the scripted backend sends for a request, an error to raise included."""
        path = request.tag
        reply = self._next(path)
        if reply is _ABSENT:
            name = declared_path(path)
            self._lacks(path, f"{name}: {_example(self._steps.get(name), request)}")
            return RequestRejected(f"the test has no reply for {path}")
        if is_failure(reply, self._shape(path)):
            return _error(reply[FAILS], has_shape=request.schema is not None)
        step = self._steps.get(declared_path(path))
        if step is not None and step.worker.work.options:
            return {"choice": reply}
        return reply if isinstance(reply, dict) else str(reply)

    async def instead(self, path: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Return what a tool or a used pipeline gives: its reply, else what really comes of its work.

        Raises:
            SynapticError: If the reply is an error, or there is none left.
        """
        reply = self._next(path)
        if reply is _ABSENT and declared_path(path) not in self.missing:
            return await work()
        if reply is _ABSENT:
            raise RunError(f"the test has no reply for {path}")
        step = self._steps[declared_path(path)]
        if is_failure(reply, self._shape(path)):
            raise _raised(step.worker, reply[FAILS])
        return reply

    async def decide(self, request: ApprovalRequest) -> Approval:
        """Answer in the place of a person: what is not scripted is accepted, unless nothing is proposed."""
        if request.what != "answer":
            reply = self._next(f"{request.path}.approve")
            if reply is _ABSENT or reply is True:
                return Approval("accepted")
            return Approval("refused", reason="the test says so") if reply is False else Approval("edited", reply)
        reply = self._next(request.path)
        if reply is _ABSENT and request.value is None:
            name = declared_path(request.path)
            self._lacks(request.path, f"{name}: {_fields(request.shape.field_names()) if request.shape else '…'}")
        if reply is _ABSENT:
            return Approval("accepted")
        if is_failure(reply, request.shape):
            return Approval("refused", reason=str(reply[FAILS]))
        return Approval("edited", reply if isinstance(reply, dict) else str(reply))

    def _next(self, path: str) -> Any:
        """Return the next reply of a path: its own, else that of the step whatever the number; maybe ``_ABSENT``."""
        key = path if path in self._replies else declared_path(path)
        reply = self._replies.get(key, _ABSENT)
        if not isinstance(reply, list):
            return reply
        turn = self._turns[key]
        self._turns[key] += 1
        if turn < len(reply):
            return reply[turn]
        calls = "call" if turn == 1 else "calls"
        self.missing.setdefault(key, f"{key} is asked more often: after {turn} {calls} its list has no reply left")
        return _ABSENT

    def _lacks(self, path: str, line: str) -> None:
        key = declared_path(path)
        others = [other for other in self._unanswered() if other != key]
        more = f" (without one, too: {', '.join(others)})" if others and not self.missing else ""
        self.missing.setdefault(key, f"{path} has no reply; write one under 'replies', as in {line}{more}")

    def _unanswered(self) -> Iterator[str]:
        """Yield the steps that only a model or a person could answer, and that the test answers nothing of."""
        known = {declared_path(key) for key in self._replies}
        for path, step in self._steps.items():
            owners = {path[:end] for end, sign in enumerate(path) if sign == "."} | {path}
            if (step.worker.call is not None or step.worker.work.unanswered) and not owners & known:
                yield path

    def _shape(self, path: str) -> Any:
        step = self._steps.get(declared_path(path))
        if step is None:
            return None
        call = step.worker.call
        return call.shape if call is not None else getattr(step.worker.work, "shape", None)


def _error(reason: str, *, has_shape: bool) -> Any:
    """Return the error that a model's reply fails with; for ``output`` a reply that cannot be used."""
    if reason not in _ERRORS:
        return _UNUSABLE[has_shape]
    kind, message = _ERRORS[reason]
    return kind(f"{message} (the test says so)", backend="test")


def _raised(step: CompiledStep, said: str) -> SynapticError:
    if step.kind == "tool":
        return ToolRaised(f"the tool {step.work.name!r} raised: {said}")
    return RunError(said)


def _example(step: CompiledStep | None, request: ChatRequest) -> str:
    """Return a reply that has the right form."""
    if step is not None and step.worker.work.options:
        return next(iter(step.worker.work.options))
    if request.schema is None:
        return "…"
    return _fields(request.schema.get("properties", {}))


def _fields(names: Any) -> str:
    return f"{{{', '.join(f'{name}: …' for name in names)}}}"
