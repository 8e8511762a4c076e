"""What a node is reached with: its secret from the environment or a file, and a client that sends it.

A secret is read when a client is made, goes into one header, and into no message, no log and no representation.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from synaptic import paths
from synaptic.backends import ollama
from synaptic.backends.http import authorization
from synaptic.errors import ConfigError
from synaptic.settings import authorities_file
from synaptic.text import NotRegularFile, NotTextError, decoded, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from synaptic.backends.ollama import OllamaBackend
    from synaptic.settings import NodeSettings, Settings

MAX_SECRET_BYTES = 64 * 1024
"""The longest tokens in use have a few KiB; a file of more is another one."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def node_headers(node: NodeSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a node asks for; none where its settings name no secret.

    Raises:
        ConfigError: If a variable is not set, or a file is not there, cannot be read or is empty, or if what it holds
            cannot be sent. It names the node and the variable or the file, and never shows the secret.
    """
    token = _secret(node, "token", node.token_env, node.token_file, environ)
    password = _secret(node, "password", node.password_env, node.password_file, environ)
    try:
        return authorization(token=token, user=node.username, password=password)
    except ConfigError as exc:
        held = _place(node.token_env or node.password_env, node.token_file or node.password_file)
        raise ConfigError(f"node {node.shown}: {held}: {exc.message}", hint=exc.hint) from exc


def known_secrets(nodes: Iterable[NodeSettings], environ: Mapping[str, str]) -> set[str]:
    """Return what must be written down nowhere: tokens and passwords, as they are and as they are sent.

    Those that cannot be had are left out: nothing knows them here.
    """
    secrets: set[str] = set()
    for node in nodes:
        with suppress(ConfigError):
            token = _secret(node, "token", node.token_env, node.token_file, environ)
            password = _secret(node, "password", node.password_env, node.password_file, environ)
            secrets.update(each.strip() for each in (token, password) if each)
            secrets.update(value.partition(" ")[2] for value in node_headers(node, environ).values())
    return secrets


def open_client(
    settings: Settings, node: NodeSettings, environ: Mapping[str, str], *, as_loaded: bool = False
) -> OllamaBackend:
    """Return a client of ``node`` whose requests follow ``settings``; nothing is sent yet.

    Args:
        settings: For requests that do not say.
        node: The node.
        environ: Where its secret is.
        as_loaded: Whether it keeps models loaded as they are; a pool does that itself.

    Raises:
        ConfigError: If the node's secret or its certificates cannot be had; see :func:`node_headers`.
    """
    return ollama.OllamaBackend(
        node.url,
        num_ctx=settings.num_ctx,
        keep_alive=settings.keep_alive,
        think=settings.think,
        temperature=settings.temperature,
        headers=node_headers(node, environ),
        ca_file=certificates(node),
        parallel=node.parallel,
        as_loaded=as_loaded,
        shown=node.name,
    )


def certificates(node: NodeSettings) -> Path | None:
    """Return the file of certificates that are believed for ``node``; ``None`` is the system's.

    Raises:
        ConfigError: If the file cannot be used.
    """
    if node.ca_file is None:
        return None
    try:
        return authorities_file(node.ca_file)
    except ConfigError as exc:
        raise ConfigError(f"node {node.shown}: its ca_file: {exc.message}", hint=exc.hint) from exc


def access_notices(node: NodeSettings) -> list[str]:
    """Return what a person should know about the secret of ``node``: who else can read it, here or on the way."""
    notices = []
    for name in (node.token_file, node.password_file):
        if name is None:
            continue
        path = _path(name)
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError):  # said by node_headers
            continue
        if mode & _OTHERS:
            notices.append(f"node {node.shown}: other users can read {path}; run: chmod 600 {path}")
    secret = node.token_env or node.token_file or node.username
    if secret and node.url.startswith("http:") and not ollama.is_loopback(node.url):
        notices.append(f"node {node.shown}: its secret is sent unencrypted; use https where the node has it")
    return notices


def _secret(
    node: NodeSettings, kind: str, variable: str | None, file: str | None, environ: Mapping[str, str]
) -> str | None:
    if variable is not None:
        return _from_variable(node, kind, variable, environ)
    return None if file is None else _from_file(node, kind, file)


def _from_variable(node: NodeSettings, kind: str, variable: str, environ: Mapping[str, str]) -> str:
    value = environ.get(variable)
    if not value or not value.strip():
        what = "is not set" if value is None else "is empty"
        raise ConfigError(
            f"node {node.shown}: the environment variable {variable} {what}",
            hint=f"export {variable} with the {kind}, or change {kind}_env of the node",
        )
    return value


def _from_file(node: NodeSettings, kind: str, name: str) -> str:
    path = _path(name)
    hint = f"write the {kind} into it, alone, or change {kind}_file of the node"
    try:
        data = read_regular(path, MAX_SECRET_BYTES)
    except (IsADirectoryError, NotRegularFile):
        _refuse(node, f"{path} is no regular file", hint)
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or "it is no path"
        advice = "check who may read it" if isinstance(exc, PermissionError) else hint
        raise ConfigError(f"node {node.shown}: {path} cannot be read: {reason.lower()}", hint=advice) from exc
    if len(data) > MAX_SECRET_BYTES:
        _refuse(node, f"{path} is longer than {MAX_SECRET_BYTES // 1024} KiB, which no {kind} is", hint)
    try:
        text = decoded(data).rstrip("\r\n")
    except NotTextError:
        # Not "from": the foreign error holds the bytes.
        text = None
    if text is None:
        _refuse(node, f"{path} is not UTF-8 text", hint)
    if not text.strip():
        _refuse(node, f"{path} is empty", hint)
    return text


def _refuse(node: NodeSettings, message: str, hint: str) -> NoReturn:
    raise ConfigError(f"node {node.shown}: {message}", hint=hint)


def _place(variable: str | None, file: str | None) -> str:
    return f"the environment variable {variable}" if variable else str(_path(file or ""))


def _path(name: str) -> Path:
    return paths.expanded(name)
