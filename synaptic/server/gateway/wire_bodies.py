"""Bodies that are checked against a shape: what is wrong in one is a refusal that names the field."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from synaptic.messages import Image
from synaptic.server.gateway.refusal import BAD_REQUEST, Refusal
from synaptic.server.gateway.strict_json import place, read_json
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ErrorDetails

    from synaptic.text import KeyPath

_DATA_URL: Final = re.compile(r"data:(image/[a-z0-9.+-]+);base64,", re.IGNORECASE)


class WireBody(BaseModel):
    """A shape of a dialect: a number is no text in it, and what it does not have is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class OpenBody(BaseModel):
    """A shape of which clients send more than matters here."""

    model_config = ConfigDict(extra="ignore", strict=True)


Shape = TypeVar("Shape", bound=BaseModel)


def reader_of(shape: type[Shape]) -> Callable[[bytes], Shape]:
    """Return what reads the bytes of a body as ``shape``; it raises a ``Refusal`` that names the field."""

    def read(raw: bytes) -> Shape:
        value: Any = read_json(raw) if raw.strip() else None
        if not isinstance(value, dict):
            raise Refusal(BAD_REQUEST, "the body must be a JSON object")
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            raise _refusal(error, value) from error

    return read


def _refusal(error: ValidationError, body: Any) -> Refusal:
    """Return the refusal of a field that is not known, else of the mistake that lies deepest in the body."""
    mistakes = error.errors(include_url=False, include_input=False, include_context=False)
    paths = [_path_in(body, mistake) for mistake in mistakes]
    ranks = [(mistake["type"] == "extra_forbidden", len(path)) for mistake, path in zip(mistakes, paths, strict=True)]
    chosen = ranks.index(max(ranks))
    mistake, field = mistakes[chosen], place(paths[chosen])
    if mistake["type"] == "extra_forbidden":
        return Refusal(BAD_REQUEST, f"{field}: this server does not know that field; leave it out", field=field)
    return Refusal(BAD_REQUEST, f"{field}: {excerpt(mistake['msg'])}", field=field)


def _path_in(body: Any, mistake: ErrorDetails) -> KeyPath:
    """Return where a mistake is: of pydantic's place, what is in the body, without the names of types."""
    path: list[str | int] = []
    for key in mistake["loc"]:
        if (isinstance(body, dict) and key in body) or (isinstance(body, list) and isinstance(key, int)):
            path.append(key)
            body = body[key]  # type: ignore[index]  # one of the two
    return (*path, mistake["loc"][-1]) if mistake["type"] == "missing" else tuple(path)


def image_of(url: str, field: str) -> Image:
    """Return the picture in a data URL; another address is never fetched.

    Raises:
        Refusal: If it is none.
    """
    found = _DATA_URL.match(url)
    if found is None:
        raise Refusal(BAD_REQUEST, f"{field} must be a data URL of a picture in base64: none is fetched", field=field)
    return image_from(url[found.end() :], found[1].lower(), field)


def image_from(data: str, media_type: str, field: str) -> Image:
    """Return a picture that is written in base64.

    Raises:
        Refusal: If it is not.
    """
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError:  # also of characters that are none of base64
        raw = b""
    if not raw:
        raise Refusal(BAD_REQUEST, f"{field} is no picture in base64", field=field)
    return Image(data, media_type)
