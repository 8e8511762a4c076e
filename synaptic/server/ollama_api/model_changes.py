"""What a client wants done with models: ``/api/pull``, ``push``, ``create``, ``copy``, ``delete``, as Ollama reads it.

Fields, and the words for what is wrong with one, are those of Ollama's handlers (``server/routes.go``, ``create.go``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from synaptic.server.ollama_api import refusals as errors
from synaptic.server.ollama_api import tagged_names as names
from synaptic.server.ollama_api.refusals import BAD_REQUEST, Refusal, quoted

if TYPE_CHECKING:
    from synaptic.server.ollama_api.replies import Json
    from synaptic.server.ollama_api.requests import Body

Action: TypeAlias = Literal["pull", "push", "create", "copy", "delete"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

NODE_HEADER: Final = "X-Synaptic-Node"
"""Names the node that a request is for; without it, it is for all that it can be for."""

_DIGEST: Final = re.compile("sha256[:-][0-9a-fA-F]{64}")
_TELLING: Final = frozenset({"pull", "push", "create"})
_OWN_FILES: Final = ("files", "adapters", "draft_files")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """One change.

    Attributes:
        models: The names that it speaks of; the first is that of what is pulled, pushed, made, copied or deleted.
        body: As a node is asked.
        node: The one that is named; ``None`` for all.
        for_one: Whether it is for one node only: what it needs of the client's is at one.
    """

    action: Action
    models: tuple[str, ...]
    body: Json
    node: str | None = None
    for_one: bool = False

    @property
    def method(self) -> str:
        """Of HTTP."""
        return "DELETE" if self.action == "delete" else "POST"

    @property
    def path(self) -> str:
        """Of the route."""
        return f"/api/{self.action}"

    @property
    def tells(self) -> bool:
        """Whether it is told how far it is; what does not tell is answered with nothing."""
        return self.action in _TELLING

    def not_found(self) -> Refusal:
        """Return the refusal of a model that no node has, or that cannot be had from where it is."""
        if self.tells:
            return Refusal(errors.SERVER_ERROR, "pull model manifest: file does not exist")
        if self.action == "copy":
            return Refusal(errors.NOT_FOUND, f"model {quoted(self.models[0])} not found")
        return errors.model_not_found(self.models[0])


@dataclass(frozen=True, slots=True)
class BlobRequest:
    """Of a file for a model that is to be made: its digest, and the node that is named; ``None`` for the only one."""

    digest: str
    node: str | None


def read_blob(digest: str, node: str | None) -> BlobRequest:
    """Return what a request for a file asks for.

    Raises:
        Refusal: If the digest is none.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise Refusal(BAD_REQUEST, "invalid digest format")
    return BlobRequest(digest, node)


def read_change(action: Action, body: Body, node: str | None) -> ModelChange:
    """Return what a request asks for.

    Raises:
        Refusal: If a field is wrong, or a name is none.
    """
    if action == "copy":
        source, destination = body.text("source"), body.text("destination")
        _check(source, f"source {quoted(source)} is invalid")
        _check(destination, f"destination {quoted(destination)} is invalid")
        sent: Json = {"source": source, "destination": destination}
        return ModelChange(action=action, models=(source, destination), body=sent, node=node)
    model = body.text("model") or body.text("name")
    if action == "delete":
        _check(model, f"name {quoted(model)} is invalid")
        return ModelChange(action=action, models=(model,), body={"model": model}, node=node)
    if action == "push" and not model:
        raise errors.model_required()
    _check(model, "invalid model name")
    body.switch("stream", default=True)
    told = {"model": model, "stream": True}
    if action == "create":
        origin = body.text("from")
        rest = {name: value for name, value in body.fields.items() if name != "name"}
        own_files = any(rest.get(name) for name in _OWN_FILES)
        models = (model, origin) if origin else (model,)
        return ModelChange(action=action, models=models, body={**rest, **told}, node=node, for_one=own_files)
    if body.switch("insecure", default=False):
        told["insecure"] = True
    return ModelChange(action=action, models=(model,), body=told, node=node, for_one=action == "push")


def _check(name: str, said: str) -> None:
    if not names.is_valid(name):
        raise Refusal(BAD_REQUEST, said)
