"""Which models are served: the one of the store, under its name and its other names, once it has been fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.backends.embedded import MOST_OF_MEMORY
from synaptic.models import MODEL_NAME, read_header, read_shape
from synaptic.server.ollama_api import tagged_names as names
from synaptic.server.ollama_api.refusals import BAD_REQUEST, Refusal, invalid_name
from synaptic.server.ollama_api.replies import human_number, local_time
from synaptic.text import gib, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.models import Header, ModelShape, ModelStore
    from synaptic.server.ollama_api.generation_options import LoadOptions
    from synaptic.server.ollama_api.loading import Runner

CACHE_PART = 34 / 64
"""What a KV cache in Q8_0 (34 bytes for 32 values), which the engine keeps, takes of one with 16 bits a value."""

SHORT_LIST = 5  # entries; longer lists are shown with ``verbose`` only
_HIDDEN = ("general.name", "tokenizer.chat_template")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file says."""

    header: Header
    shape: ModelShape
    size: int
    modified: float

    def cache_bytes(self, tokens: int) -> int:
        """Return the size of the keys and values of ``tokens`` tokens of context."""
        return int(tokens * sum(layer.kv_bytes_per_token for layer in self.shape.layers) * CACHE_PART)


class Catalogue:
    """The names that are served, and what is said of them.

    Args:
        store: Where the model is, or will be.
        aliases: Other names for the same weights; each is a model of its own to clients.
    """

    def __init__(self, store: ModelStore, aliases: Sequence[str] = ()) -> None:
        self.store = store
        self._names = list(dict.fromkeys([MODEL_NAME, *aliases]))
        self._facts: Facts | None = None

    @property
    def names(self) -> list[str]:
        """The names of models that are here."""
        return self._names if self.store.has_model() else []

    def find(self, name: str) -> str | None:
        """Return the model that ``name`` means; ``None`` if it is not here.

        Raises:
            Refusal: If no model can have that name.
        """
        return names.find(_checked(name), self.names)

    def find_in_library(self, name: str) -> str | None:
        """Return the model that ``name`` means, here or not; ``None`` if it cannot be fetched.

        Raises:
            Refusal: If no model can have that name.
        """
        return names.find(_checked(name), self._names)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return self.store.artifact.sha256

    @property
    def trained_context(self) -> int:
        """Tokens of context that the model was trained with."""
        return self.facts().shape.trained_context

    def facts(self) -> Facts:
        """Return what the file says; it is read once.

        Raises:
            ModelFileError: If it is not a GGUF file of a language model, or damaged.
        """
        if self._facts is None:
            path = self.store.path
            shape, header = read_shape(MODEL_NAME, [path]), read_header(path, whole=True)
            self._facts = Facts(header, shape, header.file_size, path.stat().st_mtime)
        return self._facts

    def details(self) -> dict[str, Any]:
        """Return ``details`` as every listing has them."""
        shape = self.facts().shape
        return {
            "parent_model": "",
            "format": "gguf",
            "family": shape.architecture,
            "families": [shape.architecture],
            "parameter_size": human_number(shape.parameters),
            "quantization_level": shape.quantization,
        }

    def tags(self) -> list[dict[str, Any]]:
        """Return the entries of ``/api/tags``."""
        return [
            {
                "name": name,
                "model": name,
                "modified_at": local_time(self.facts().modified),
                "size": self.facts().size,
                "digest": self.digest,
                "details": self.details(),
            }
            for name in self.names
        ]

    def running(self, runner: Runner, *, parallel: int, expires_at: float) -> dict[str, Any]:
        """Return the entry of ``/api/ps`` for one model: nothing of it is ever in the memory of a GPU."""
        facts = self.facts()
        cache = facts.cache_bytes(runner.options.context * parallel)
        return {
            "name": runner.name,
            "model": runner.name,
            "size": facts.size + cache,
            "digest": self.digest,
            "details": self.details(),
            "expires_at": local_time(expires_at),
            "size_vram": 0,
            "context_length": runner.options.context,
        }

    def show(self, name: str, *, verbose: bool) -> dict[str, Any]:
        """Return the answer of ``/api/show`` for a model that is here."""
        facts = self.facts()
        values = facts.header.values
        info = {key: value for key, value in values.items() if key not in _HIDDEN}
        if not verbose:
            info = {key: [] if _is_long(value) else value for key, value in info.items()}
        template = str(values.get("tokenizer.chat_template", ""))
        return {
            "modelfile": f'# Modelfile generated by "ollama show"\n# FROM {name}\n\nFROM {self.store.path}\n',
            "template": template,
            "details": self.details(),
            "model_info": {**info, "general.parameter_count": facts.shape.parameters},
            "tensors": [
                {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.dimensions)}
                for tensor in facts.header.tensors
            ],
            "capabilities": ["completion"],
            "modified_at": local_time(facts.modified),
        }


def check_memory(options: LoadOptions, parallel: int, facts: Facts, available: int) -> None:
    """Refuse a context that memory does not hold.

    Args:
        options: How the model is to be loaded.
        parallel: Calls at once.
        facts: What its file says.
        available: Bytes of memory that are free.

    Raises:
        Refusal: If it does not; says which one would.
    """
    each, most = facts.cache_bytes(1) * parallel, available * MOST_OF_MEMORY
    if each * options.context <= most:
        return
    said = f"a context of {options.context} tokens for {plural(parallel, 'call')} at once needs"
    cure = f"ask for at most {int(most / each)} with num_ctx"
    raise Refusal(BAD_REQUEST, f"{said} {gib(each * options.context)} of memory, and {gib(available)} is free: {cure}")


def _checked(name: str) -> str:
    if not names.is_valid(name):
        raise invalid_name()
    return name


def _is_long(value: object) -> bool:
    return isinstance(value, list) and len(value) > SHORT_LIST
