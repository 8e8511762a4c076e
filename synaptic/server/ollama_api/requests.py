"""What comes in: bodies of requests, checked as Go's decoder and Ollama's handlers check them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.server.gateway import read_json
from synaptic.server.ollama_api import durations
from synaptic.server.ollama_api.format_schema import check_schema
from synaptic.server.ollama_api.generation_options import GenerationOptions, read_options
from synaptic.server.ollama_api.refusals import BAD_REQUEST, Refusal, invalid_format, lacks, no_images, quoted
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

_GO = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_WANTED = {str: "string", bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
MOST_LOGPROBS = 20  # alternatives a token
ROLES = ("system", "user", "assistant", "tool")
GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? ws "}"
array  ::= "[" ws (value ("," ws value)*)? ws "]"
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]))* "\""
number ::= ("-"? ([0-9] | [1-9] [0-9]*)) ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
ws     ::= ([ \t\n] ws)?
"""
"""JSON as Ollama lets it through for ``"format": "json"`` (``grammarJSON``)."""


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON object of a request; its methods read one field each and refuse what has another type."""

    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """Return a string; "" where it is not given."""
        return str(self._read(name, str) or "")

    def switch(self, name: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self._read(name, bool)
        return default if value is None else bool(value)

    def items(self, name: str) -> list[Any]:
        """Return a list; an empty one where it is not given."""
        return list(self._read(name, list) or [])

    def options(self) -> GenerationOptions:
        """Return ``options``.

        Raises:
            Refusal: If one has the wrong type.
        """
        return read_options(self._read("options", dict) or {})

    def keep_alive(self) -> float | None:
        """Return ``keep_alive`` in seconds; ``None`` where it is not given.

        Raises:
            Refusal: If it is not a duration.
        """
        try:
            return durations.keep_alive(self.fields.get("keep_alive"))
        except ValueError as error:
            raise Refusal(BAD_REQUEST, str(error)) from error

    def thinks(self) -> bool:
        """Tell whether thinking is asked for: ``true`` or one of the levels.

        Raises:
            Refusal: If it is neither.
        """
        value = self.fields.get("think")
        if value is None or isinstance(value, bool):
            return bool(value)
        if isinstance(value, str) and value in {"high", "medium", "low", "max"}:
            return True
        raise Refusal(BAD_REQUEST, 'think must be a boolean or string ("high", "medium", "low", true, or false)')

    def logprobs(self) -> int | None:
        """Return with how many alternatives log-probabilities are asked for; ``None`` where they are not.

        Raises:
            Refusal: If the number is none, or too high.
        """
        top = self.fields.get("top_logprobs") or 0
        if type(top) is not int or not 0 <= top <= MOST_LOGPROBS:
            raise Refusal(BAD_REQUEST, f"top_logprobs must be between 0 and {MOST_LOGPROBS}")
        return top if self.switch("logprobs", default=False) else None

    def constraint(self) -> dict[str, Any]:
        """Return ``format`` as the engine takes it.

        Raises:
            Refusal: If it is neither "json" nor a schema, or one that the engine would not survive.
        """
        match self.fields.get("format"):
            case None | "":
                return {}
            case "json":
                return {"grammar": GRAMMAR}
            case dict() as schema:
                check_schema(schema)
                return {"json_schema": schema}
            case other:
                raise invalid_format(other)

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages of a chat.

        Raises:
            Refusal: If one is not text of somebody.
        """
        found = []
        for index, message in enumerate(self.items("messages")):
            if not isinstance(message, dict):
                raise _mismatch(message, "messages", "api.Message")
            one = Body(message)
            if one.items("images"):
                raise no_images()
            if one.items("tool_calls"):
                raise lacks(self.text("model"), "tools")
            role = one.text("role").lower()
            if role not in ROLES:
                said = f"messages[{index}].role must be one of {', '.join(ROLES)}, not {quoted(excerpt(role))}"
                raise Refusal(BAD_REQUEST, said)
            found.append({"role": role, "content": one.text("content")})
        return found

    def tokens(self, name: str, vocabulary: int) -> list[int]:
        """Return a list of tokens; an empty one where it is not given.

        Raises:
            Refusal: If one is none of the model's.
        """
        found = self.items(name)
        for index, token in enumerate(found):
            if type(token) is not int or not 0 <= token < vocabulary:
                said = f"{name}[{index}] must be a token, a whole number from 0 to {vocabulary - 1}"
                raise Refusal(BAD_REQUEST, said)
        return found

    def texts(self, name: str) -> list[str]:
        """Return a text or a list of them; an empty list where none is given.

        Raises:
            Refusal: If it is something else, or one of several is empty.
        """
        given = self.fields.get(name)
        if given is None or given == "":
            return []
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refusal(BAD_REQUEST, f"invalid input type: '{name}' must be a text or an array of texts")
        if "" in texts:
            raise Refusal(BAD_REQUEST, f"{name}[{texts.index('')}] must not be empty")
        return texts

    def refuse(self, *names: str) -> None:
        """Refuse fields that would be ignored.

        Raises:
            Refusal: If one of them is given.
        """
        for name in names:
            if self.fields.get(name) not in (None, False, ""):  # 0 is False to Python, and nothing to Go
                raise Refusal(BAD_REQUEST, f"'{name}' is not supported by this server; leave it out")

    def _read(self, name: str, kind: type) -> Any:
        value = self.fields.get(name)
        if value is None or type(value) is kind:
            return value
        raise _mismatch(value, name, _WANTED[kind])


def read_body(raw: bytes) -> Body:
    """Return the JSON object that a request carries.

    Raises:
        Refusal: If there is none, or something else.
    """
    if not raw.strip():
        raise Refusal(BAD_REQUEST, "missing request body")
    value = read_json(raw)
    if not isinstance(value, dict):
        raise Refusal(BAD_REQUEST, f"json: cannot unmarshal {_GO.get(type(value), 'null')} into Go value")
    return Body(value)


def _mismatch(value: object, name: str, wanted: str) -> Refusal:
    said = _GO.get(type(value), "value")
    return Refusal(BAD_REQUEST, f"json: cannot unmarshal {said} into Go struct field .{name} of type {wanted}")
