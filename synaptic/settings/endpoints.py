"""The machines that settings name, nodes and workers, and the addresses that people write. No name is looked up."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, NoReturn, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from synaptic.errors import ConfigError
from synaptic.settings.frozen import Frozen
from synaptic.text import excerpt

OLLAMA_PORT = 11434
COLLECTOR_PORT = 4318
COORDINATOR_PORT = 18080
WORKER_PORT = 50052
MAX_PORT = 65535

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_HOST_NAME = re.compile(r"\w(?:[\w.-]*\w)?\.?")
_API_PATH = re.compile(r"/(?:api|v1)(?:/.*)?\Z")


def normal_url(text: str, *, default_port: int) -> str:
    """Return ``text`` in the one form in which equal addresses are equal strings.

    The host is in lower case, the port is written out (but for 443 of https), and no slash ends it. A path is kept: a
    reverse proxy may serve an API below one. ``default_port`` is that of an ``http`` address that names none.

    Raises:
        ConfigError: If it is not such an address. The message continues "the address ..."; a user name or a password
            in it is never repeated.
    """
    address = text.strip()
    example = f"http://127.0.0.1:{default_port}"
    if not address:
        _refuse("is empty", example)
    if "@" in address:
        raise ConfigError(
            "holds a user name or a password, and settings are no place for those", hint=f'write "{example}"'
        )
    if re.search(r"[\s\x00-\x1f\\]", address):
        _refuse("has a blank or a backslash in it", example)
    scheme, separator, rest = address.partition("://")
    if not separator:
        with_scheme = "http://" + re.sub(r"^(?:https?:)?/*", "", address, flags=re.IGNORECASE)
        try:
            _host_and_port(with_scheme.split("/")[2], example)
        except ConfigError:  # to add one would not mend it
            with_scheme = example
        _refuse("has no scheme", with_scheme)
    scheme = scheme.lower()
    if scheme not in {"http", "https"}:
        _refuse(f"has the scheme {excerpt(scheme)!r}, but it must be http or https", f"http://{rest}")
    if "?" in rest or "#" in rest:
        _refuse("has a query or a fragment", f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0]}")
    authority, slash, tail = rest.partition("/")
    host, port = _host_and_port(authority, example)
    if scheme == "http" and port is None:
        port = default_port
    if scheme == "https" and port == 443:
        port = None
    base = f"{scheme}://{host}" + ("" if port is None else f":{port}")
    path = (slash + tail).rstrip("/")
    if _API_PATH.search(path):
        _refuse("ends in the path of an API", base + _API_PATH.sub("", path))
    return base + path


def normal_host(text: str) -> str:
    """Return a host name or an IP address in lower case, an IPv6 address in brackets, its zone as ``%eth0``.

    Raises:
        ConfigError: If it is neither.
    """
    host = text.strip().lower()
    if not host:
        _refuse("has no host", "127.0.0.1")
    if host.startswith("["):
        address, percent, zone = text.strip().partition("%")
        # A zone is a name of this machine's, so its case counts; in a URL its mark may be written as %25 (RFC 6874).
        return _normal_ip(address.lower() + percent + (zone.removeprefix("25") if zone[2:] != "]" else zone))
    if re.fullmatch(r"[0-9.]+", host):
        return _normal_ip(host)
    if not _HOST_NAME.fullmatch(host):
        _refuse("has a host that is neither a name nor an IP address", "127.0.0.1")
    return host


def split_host_port(text: str) -> tuple[str, int | None]:
    """Return host and port of ``host``, ``host:port`` or ``[ipv6]:port``.

    Raises:
        ConfigError: If it is none of these.
    """
    if "@" in text:
        raise ConfigError("holds a user name or a password, and settings are no place for those")
    if "://" in text:
        _refuse("has a scheme, but a worker is named by host and port", text.partition("://")[2].partition("/")[0])
    return _host_and_port(text.strip(), f"127.0.0.1:{WORKER_PORT}")


def _host_and_port(authority: str, example: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (authority.count(":") > 1 and not authority.startswith("[")):
        raise ConfigError("has a host that cannot be read", hint="write an IPv6 address in brackets, as in [::1]:11434")
    host = normal_host(match["host"])
    port = match["port"]
    if port is None:
        return host, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= MAX_PORT:
        raise ConfigError(
            f"has the port {excerpt(port)!r}, but ports are 1 to {MAX_PORT}", hint=f'write one, as in "{example}"'
        )
    return host, int(port)


def _normal_ip(host: str) -> str:
    try:
        if host.startswith("["):
            return f"[{ipaddress.IPv6Address(host.strip('[]'))}]"
        return str(ipaddress.IPv4Address(host))
    except ValueError as exc:
        raise ConfigError("has an IP address that does not exist", hint='write one, as in "127.0.0.1"') from exc


def _refuse(message: str, instead: str) -> NoReturn:
    raise ConfigError(message, hint=f'write "{excerpt(instead)}"')


PLAIN_ERROR: Final = "synaptic_plain"

SECRET_KEYS: Final = {
    "token": ("token_env", "token_file"),
    "api_key": ("token_env", "token_file"),
    "bearer_token": ("token_env", "token_file"),
    "secret": ("token_env", "token_file"),
    "password": ("password_env", "password_file"),
}
"""What people write a secret under -> the keys that say where it is instead."""

OWN_VARIABLES: Final = "SYNAPTIC_"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class NodeSettings(Frozen):
    """One Ollama endpoint. In a list, its URL alone may stand for it."""

    url: str = Field(
        description="Address of the Ollama server; port 11434 where an `http` address names none.",
        examples=["http://127.0.0.1:11434"],
    )
    parallel: int = Field(
        default=1, ge=1, le=64, strict=True, description="Calls that the node serves at once.", examples=[2]
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "What to call it: so it stands in rows of steps, in `--json`, in `/nodes` and `/explain`. Its address "
            "where there is no name."
        ),
        examples=["desk"],
    )
    memory_gib: float | None = Field(
        default=None,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="GiB that models may take there, which Ollama does not tell.",
        examples=[24],
    )
    token_env: str | None = Field(
        default=None,
        description="Environment variable that holds the bearer token.",
        examples=["DESK_TOKEN"],
    )
    token_file: str | None = Field(
        default=None,
        min_length=1,
        description="File that holds the bearer token.",
        examples=["~/.config/desk.token"],
    )
    username: str | None = Field(
        default=None,
        min_length=1,
        description="User of basic authentication; the password comes from one of the next two.",
        examples=["ada"],
    )
    password_env: str | None = Field(
        default=None,
        description="Environment variable that holds the password.",
        examples=["DESK_PASSWORD"],
    )
    password_file: str | None = Field(
        default=None,
        min_length=1,
        description="File that holds the password.",
        examples=["~/.config/desk.password"],
    )
    ca_file: str | None = Field(
        default=None,
        min_length=1,
        description="Certificates (PEM) that are believed for this node instead of the system's.",
        examples=["~/.config/office-ca.pem"],
    )

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.name or self.url

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _normal_url(cls, value: str) -> str:
        try:
            return address(value, OLLAMA_PORT)
        except PydanticCustomError as exc:
            if "@" not in value or exc.context is None:
                raise
            hint = 'write the address alone, and "username" and "password_env" beside it'
            raise PydanticCustomError(PLAIN_ERROR, "{message}", {**exc.context, "suggestion": hint}) from exc

    @field_validator("token_env", "password_env")
    @classmethod
    def _variable_name(cls, value: str | None) -> str | None:
        # Never shown: a value that is not a name may be the secret itself.
        if value is not None and not _VARIABLE.fullmatch(value):
            raise plain("must be the name of an environment variable", "write its name alone, such as DESK_TOKEN")
        if value is not None and value.startswith(OWN_VARIABLES):
            raise plain(f"must not begin with {OWN_VARIABLES}: such variables are settings", "use another name")
        return value

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        given = {key for key in _WAYS_IN if getattr(self, key) is not None}
        for kind in ("token", "password"):
            if {f"{kind}_env", f"{kind}_file"} <= given:
                raise plain(f"has both {kind}_env and {kind}_file", "keep the one that holds it")
        basic = given & {"username", "password_env", "password_file"}
        if basic and given - basic:
            raise plain(f"has a token and {min(basic)} as well", "keep the one that the server asks for")
        if basic == {"username"}:
            raise plain(
                "has a username and no password", 'write "password_env": "DESK_PASSWORD", or password_file, beside it'
            )
        if basic and "username" not in basic:
            raise plain("has a password and no username", 'write "username": "ada" beside it')
        if self.ca_file is not None and not self.url.startswith("https:"):
            raise plain("has a ca_file, and an address without https", "write the address with https://")
        return self


_WAYS_IN: Final = ("token_env", "token_file", "username", "password_env", "password_file")


class RpcBackendSettings(Frozen):
    """One llama.cpp RPC worker. In a list, ``"host:port"`` may stand for it."""

    host: str = Field(description="Host name or IP address of the worker.", examples=["10.0.0.4"])
    port: int = Field(
        default=WORKER_PORT, ge=1, le=MAX_PORT, strict=True, description="Port of its `rpc-server`.", examples=[50052]
    )
    memory_gib: float | None = Field(
        default=None,
        gt=0,
        strict=True,
        allow_inf_nan=False,
        description="GiB that layers may take there; without it, what the worker says, and a CPU says too much.",
        examples=[12],
    )
    layers: int | None = Field(
        default=None,
        ge=0,
        strict=True,
        description="Layers to give it, whatever the placement would choose; 0 leaves it out.",
        examples=[20],
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            host, port = split_host_port(value)
        except ConfigError as exc:
            raise custom(exc) from exc
        return {"host": host} if port is None else {"host": host, "port": port}

    @field_validator("host")
    @classmethod
    def _normal_host(cls, value: str) -> str:
        try:
            host, port = split_host_port(value)
        except ConfigError as exc:
            raise custom(exc) from exc
        if port is not None:
            raise plain("has a port in it", f'write "host": "{host}" and "port": {port}')
        return normal_host(host)


def address(value: str, default_port: int) -> str:
    """Return a URL in its one form; what is wrong with it becomes a plain error of its field."""
    try:
        return normal_url(value, default_port=default_port)
    except ConfigError as exc:
        raise custom(exc) from exc


def custom(exc: ConfigError) -> PydanticCustomError:
    """Return a mistake as validation reports it; the message goes on after the setting's name."""
    return PydanticCustomError(PLAIN_ERROR, "{message}", {"message": exc.message, "suggestion": exc.hint})


def plain(message: str, suggestion: str) -> PydanticCustomError:
    """Return a mistake whose message goes on after the setting's name, and what to write instead."""
    return custom(ConfigError(message, hint=suggestion))
