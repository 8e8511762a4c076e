"""Every error that SynapticLlamas raises on purpose, and the exit codes they map to.

::

    SynapticError
    ├── UsageError                 exit 2: the command line, a setting or a file is wrong; nothing was run
    │   ├── ConfigError            a settings file, variable or flag
    │   ├── AgentError             an agent's Markdown file, or its output shape
    │   ├── PipelineError          a pipeline, its inputs or its templates
    │   └── JournalError           the record of runs cannot be read, or does not know the run
    │       ├── JournalTooNew      a newer version of this program wrote it
    │       ├── RunDamaged         what is recorded of a run changed on the disk
    │       └── RunOwned           another program that still lives works on the run
    ├── BackendError               exit 1: one call failed
    │   ├── BackendUnavailable     exit 3: nothing answers there, or it cannot be started
    │   │   ├── AddressUnusable    not by that address: a certificate, https for http, no address; never retried
    │   │   └── EngineUnavailable  our own engine cannot be installed, fetched or started; never retried
    │   │       ├── DownloadError  the embedded model could not be fetched
    │   │       ├── CoordinatorFailed  a model could not be loaded over its workers, or not be brought back
    │   │       ├── NoPlacement    the workers have no room for a model
    │   │       └── ModelFileError a model's file cannot be read, or llama.cpp would not load it
    │   ├── ModelNotFound          exit 3: the backend answers, but does not have the model
    │   ├── BackendBusy            503 or 429; retryable, and waited for
    │   │   ├── BackendNotReady    the server, or the one behind its proxy, is still loading or starting
    │   │   └── PoolSaturated      every node has all the calls it takes, and too many wait, or this one too long
    │   ├── RequestRejected        any other 4xx: the same request would fail again
    │   │   ├── FeatureMissing     the backend cannot do what the request asks for (tools, images, …)
    │   │   └── ContextOverflow    the prompt does not fit the model's context
    │   ├── ServerError            any other 5xx; retryable
    │   ├── ProtocolError          what came back is not what the API promises (HTML, broken JSON)
    │   ├── EngineCrashed          our own child process died during the call; retryable
    │   └── StreamError            the stream broke after it had begun
    │       ├── StreamFailed       the server reported an error in mid-stream
    │       ├── StreamTruncated    the connection was cut before the end was announced; retryable
    │       ├── FirstTokenTimeout  nothing came within the first-token timeout
    │       ├── IdleTimeout        the stream stalled for longer than the idle timeout; retryable
    │       └── CallTimeout        the whole call took longer than its total timeout
    ├── OutputError                exit 1: the model answered, but not in the shape that was asked for
    │   ├── OutputEmpty            there is no answer: nothing at all came, or thinking and nothing else
    │   ├── OutputTruncated        the token limit cut the JSON
    │   └── OutputInvalid          valid text, wrong shape
    ├── ToolError                  exit 1: a tool was called wrongly, or returned what its step does not allow
    │   └── ToolRaised             the function (a Python function of the person's own) raised
    ├── StepTimeout                exit 1: a tool, a sub-pipeline or a loop took longer than its step allows
    ├── NotApproved                exit 1: a person refused a step's prompt or output
    └── RunError                   exit 1: a run ended without an answer
        └── BudgetExceeded         a run used up its tokens, calls or seconds

Families follow what the caller can do: fix the input (usage), use another backend or wait (backend),
ask again (output). Foreign exceptions are mapped to these at one boundary each, with ``from exc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synaptic.messages import Finished


LONGEST_CLAUSE = 1000
"""Characters of what is said of one mistake: what a person wrote is quoted, but a file may be one long line."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake: where it is, what is wrong, what to write instead; cut where it quotes too much.

    Attributes:
        message: What is wrong, one line, without a full stop.
        source: The file's path, or a name such as ``--set`` or ``SYNAPTIC_MODEL``.
        line: One-based; ``None`` where there is no line.
        column: One-based; ``None`` where there is no column.
        suggestion: What to write instead, as a clause (``did you mean 'model'?``).
    """

    message: str
    source: str | None = None
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None

    def __post_init__(self) -> None:
        for name, text in (("message", self.message), ("suggestion", self.suggestion)):
            if text is not None and len(text) > LONGEST_CLAUSE:
                object.__setattr__(self, name, text[: LONGEST_CLAUSE - 1] + "…")

    @property
    def location(self) -> str:
        """``file:line:column`` as far as it is known."""
        return ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)

    @property
    def clause(self) -> str:
        """What is wrong and what to write instead, without the place."""
        return f"{self.message}; {self.suggestion}" if self.suggestion else self.message

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        return f"{where}{self.clause}"


class ExitCode(IntEnum):
    """What the process says when it ends."""

    ANSWERED = 0
    FAILED = 1
    USAGE = 2
    NO_BACKEND = 3
    INTERRUPTED = 130


class Trouble(StrEnum):
    """What stands between a call and its answer, where that is known: what a person has to do depends on it.

    ``synaptic.backends.http.meaning`` decides which one an answer, or the lack of one, means.
    """

    NO_ADDRESS = "not an address of a server"
    CLOSED_HERE = "closed by this program"
    NO_NAME = "the name does not resolve"
    NOT_LISTENING = "the connection is refused"
    NO_ROUTE = "no way to the machine"
    NO_CONNECTION = "no connection in time"
    NO_ANSWER = "a connection, and no answer"
    CERTIFICATE = "a certificate that is not believed"
    CLIENT_CERTIFICATE = "a certificate is asked for"
    SPEAKS_HTTP = "https was asked of a server that speaks http"
    SPEAKS_HTTPS = "http was asked of a server that speaks https"
    NO_ENCRYPTION = "no agreement on encryption"
    NOT_HTTP = "not HTTP"
    NOT_READY = "still loading or starting"
    GATEWAY = "a proxy that gets no answer of the server behind it"
    BUSY = "busy"
    UNAUTHORISED = "credentials are asked for"
    FORBIDDEN = "access is refused"
    PROXY_LOGIN = "a proxy asks for credentials"
    LOGIN_PAGE = "a page to log in at"
    MOVED = "moved to another address"
    WEB_PAGE = "a web page"
    NO_API = "a server without this API"
    NO_MODEL = "the model is not there"
    TOO_LARGE = "the request is too large"
    CONTEXT = "the prompt does not fit the context"
    REJECTED = "the request is refused"
    SERVER = "the server failed"


class SynapticError(Exception):
    """Root of everything raised on purpose. ``hint`` says what to do about it.

    ``step`` is the path of the step that failed, where the error made a run fail.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    retryable: ClassVar[bool] = False
    step: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def headline(self) -> str:
        """The message, behind the name of the step that failed."""
        named = self.step is None or self.message.startswith((f"{self.step}:", f"{self.step}."))
        return self.message if named else f"{self.step}: {self.message}"

    def rephrase(self, change: Callable[[str], str]) -> None:
        """Say what the error says as ``change`` has it."""
        self.message = change(self.message)
        self.hint = change(self.hint) if self.hint else self.hint
        self.args = (self.message,)

    def __str__(self) -> str:
        return f"{self.headline}\n  {self.hint}" if self.hint else self.headline


class UsageError(SynapticError):
    """The input is wrong; nothing was run. ``problems`` lists every mistake found, each once."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Self:
        """Return one error whose text is one line a problem."""
        return cls("\n".join(str(problem) for problem in problems), problems=problems)

    @classmethod
    def of_kind(cls, name: str, value: object, wanted: str) -> Self:
        """Return what is wrong with an argument of the library that is of another kind than it takes."""
        kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        if isinstance(value, (list, tuple, dict)):
            inside = value.values() if isinstance(value, dict) else value
            kind += f" of {', '.join(sorted({type(each).__name__ for each in inside})) or 'nothing'}"
        return cls.of([Problem(f"{name} must be {wanted}; it is {kind}")])


class ConfigError(UsageError):
    """A settings file, an environment variable or a ``--set`` is wrong."""


class AgentError(UsageError):
    """An agent's file or its output shape is wrong."""


class PipelineError(UsageError):
    """A pipeline, its inputs or its templates are wrong."""


class JournalError(UsageError):
    """The record of runs cannot be read, or does not know the run that was asked for."""


class JournalTooNew(JournalError):
    """A newer version of this program wrote the record of runs; it is left as it is."""


class RunDamaged(JournalError):
    """What is recorded of a run changed on the disk, or is gone from there; other runs can be read."""


class RunOwned(JournalError):
    """Another program works on the run, and still lives."""


class BackendError(SynapticError):
    """One call to a backend failed. ``backend`` and ``node`` say where, ``trouble`` why, where that is known."""

    trouble: Trouble | None = None

    def __init__(
        self, message: str, *, hint: str | None = None, backend: str | None = None, node: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.backend = backend
        self.node = node


class BackendUnavailable(BackendError):
    """Nothing answers at the address, or the engine cannot be started."""

    exit_code = ExitCode.NO_BACKEND
    retryable = True


class AddressUnusable(BackendUnavailable):
    """Something is there, and cannot be used by that address: asking again would not help until a person acts."""

    retryable = False


class EngineUnavailable(BackendUnavailable):
    """Our own engine is not installed, cannot be fetched or does not start; trying again would not help."""

    retryable = False


class CoordinatorFailed(EngineUnavailable):
    """A model could not be loaded over its workers, or not be brought back after a loss, within the attempts for that.

    ``worker`` is the one that is to blame, ``log_line`` what was said of it; "" where that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        backend: str | None = None,
        node: str | None = None,
        worker: str = "",
        log_line: str = "",
    ) -> None:
        super().__init__(message, hint=hint, backend=backend, node=node)
        self.worker = worker
        self.log_line = log_line


class DownloadError(EngineUnavailable):
    """The embedded model could not be fetched or failed its checksum."""


class ModelFileError(EngineUnavailable):
    """A model's file cannot be read, is damaged or incomplete, or is none that llama.cpp generates text with."""


class NoPlacement(EngineUnavailable):
    """The workers cannot hold a model with the context and the slots that are wanted.

    ``missing_bytes`` is what they lack, 0 where that cannot be said: no worker, or an order that cannot be obeyed.
    """

    def __init__(self, message: str, *, missing_bytes: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, backend="distributed")
        self.missing_bytes = missing_bytes


class ModelNotFound(BackendError):
    """The backend answers but does not have the model."""

    exit_code = ExitCode.NO_BACKEND


class BackendBusy(BackendError):
    """503 or 429. ``retry_after`` is in seconds, when the server named it."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        backend: str | None = None,
        node: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, backend=backend, node=node)
        self.retry_after = retry_after


class BackendNotReady(BackendBusy):
    """The server is there and still loads its model or starts, or a proxy gets no answer of the server behind it."""


class PoolSaturated(BackendBusy):
    """Every node that could serve the call has all that it takes, and the queue is full or the wait was too long.

    ``estimated_wait`` is how long a call that came now would wait, in seconds; it is ``retry_after``, too.
    """

    def __init__(self, message: str, *, estimated_wait: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, retry_after=estimated_wait)
        self.estimated_wait = estimated_wait


class RequestRejected(BackendError):
    """A 4xx that the same request would meet again."""


class FeatureMissing(RequestRejected):
    """A request asks for something that the backend cannot do; ``missing`` names it."""

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...] = (),
        hint: str | None = None,
        backend: str | None = None,
        node: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, backend=backend, node=node)
        self.missing = missing


class ContextOverflow(RequestRejected):
    """The prompt does not fit the model's context.

    Where the server cut the prompt and answered what was left of it, ``context`` is what it was cut to, in tokens, and
    ``end`` the last chunk of that reply.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        backend: str | None = None,
        node: str | None = None,
        context: int | None = None,
        end: Finished | None = None,
    ) -> None:
        super().__init__(message, hint=hint, backend=backend, node=node)
        self.context = context
        self.end = end


class ServerError(BackendError):
    """A 5xx other than 503."""

    retryable = True


class ProtocolError(BackendError):
    """The reply is not what the API promises: HTML, broken JSON, a missing field."""


class ReplyTooLong(ProtocolError):
    """A server sent more than any answer to what was asked can be, and did not come to an end."""


class EngineCrashed(BackendError):
    """Our own child process died while it served the call."""

    retryable = True


class StreamError(BackendError):
    """The stream broke after the server had accepted the request."""


class StreamFailed(StreamError):
    """The server reported an error inside the stream."""


class StreamTruncated(StreamError):
    """The connection ended before the server announced the end."""

    retryable = True


class FirstTokenTimeout(StreamError):
    """Nothing came within the first-token timeout."""


class IdleTimeout(StreamError):
    """The stream stalled for longer than the idle timeout."""

    retryable = True


class CallTimeout(StreamError):
    """The whole call took longer than its total timeout."""


class OutputError(SynapticError):
    """The model answered, but not in the shape that was asked for. ``text`` is what it said."""

    def __init__(self, message: str, *, text: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text


class OutputEmpty(OutputError):
    """No answer came, in spite of a complete reply: nothing at all, or thinking alone."""


class OutputTruncated(OutputError):
    """The token limit cut the structured output."""


class OutputInvalid(OutputError):
    """The output does not have the shape that was asked for."""


class ToolError(SynapticError):
    """A tool was called wrongly, raised, or returned what its step does not allow."""


class ToolRaised(ToolError):
    """The function of a tool raised. What it needs may be there the next time it is called."""

    retryable: ClassVar[bool] = True


class StepTimeout(SynapticError):
    """A tool, a sub-pipeline or a loop took longer than its step's ``timeout.total``."""


class NotApproved(SynapticError):
    """A person refused a step's prompt or output, or did not answer its question."""


class RunError(SynapticError):
    """A run ended without an answer."""


class BudgetExceeded(RunError):
    """A run used up what its pipeline allows.

    ``what`` is ``tokens``, ``calls`` or ``seconds``; ``meter`` is whose budget it was.
    """

    def __init__(self, message: str, *, what: str, meter: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.what = what
        self.meter = meter
