"""What an answer that is none means, or the lack of one: the one place that decides, with the words and what to do.

Pure: a status, headers and a body, or the exceptions of a connection, come in; a :class:`Meaning` comes out. Every
class of error, every command and every notice takes its words from here.

The rules are asked in order; the first one that knows an answer decides. What stands in the body goes before what the
status says, since proxies and servers use the same numbers for different things: 503 is "Loading model" of
``llama-server``, "server busy" of Ollama, and a page of a proxy whose server is down.

Sources: Ollama ``server/routes.go`` and ``llm/server.go``, llama.cpp ``tools/server/server-http.cpp``, llama-swap
``proxy/process.go``, RFC 9110 (statuses), RFC 6585 (429, 511), Cloudflare's list of 520 to 530, and the pages of nginx,
HAProxy, Caddy, Traefik, Envoy, Apache and Squid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from synaptic.backends.http.answer import QUOTE_CHARACTERS, Answer, page_title, server_text
from synaptic.backends.http.origin import Origin, without_password
from synaptic.errors import Trouble

OTHER_PROGRAM = "is another program, or a proxy, listening on that port?"
WAITED_FOR = "calls wait for it, as long as first_token_timeout allows"

_LOADING = re.compile(
    r"^loading\b|\b(?:is|still|currently|server|model|engine|status:?) (?:still |currently |being )?loading\b|"
    r"\bloading (?:the |a )?model\b|\bmodel (?:is |is still )?being loaded\b|\bserver launched\b|"
    r"\bnot (?:yet )?ready\b(?! for)|\bwarming up\b|\bwaking up\b|"
    r"\b(?:is|still|currently|server|model|engine|process|already) starting\b|^starting\b|\bstarting up\b|"
    r"\b(?:is|still|server|model|engine) initiali[sz]ing\b|^initiali[sz]ing\b",
    re.IGNORECASE,
)
_NOT_LOADING = re.compile(
    r"\berror (?:while |when |during )?(?:loading|starting)|\bfail(?:ed|s|ure|ing)?\b|\bunable to\b|\bcannot\b|"
    r"\bcan't\b|\bcould(?: not|n't)\b|\bcrash|\bexited\b|\bterminated\b|\btimed out\b|\bout of memory\b|"
    r"\bnot found\b|\bno such\b",
    re.IGNORECASE,
)
"""A load that went wrong speaks of loading, too."""

_BUSY = re.compile(
    r"\b(?:server|llm|model|engine|it|is|are|currently|too) (?:is )?(?:too |currently )?busy\b|^busy\b|\boverloaded\b|"
    r"\bmaximum pending requests\b|\bno (?:free |available )?slots? (?:is |are )?available\b|\bqueue (?:is )?full\b|"
    r"\btoo many (?:concurrent |pending )?requests\b|\bat capacity\b|\brate limit",
    re.IGNORECASE,
)
_FOR_GOOD = re.compile(
    r"\bexited\b|\bno such file\b|\bnot found\b|\bpermission denied\b|\bunknown\b|\binvalid\b|\bunsupported\b",
    re.IGNORECASE,
)
"""Why a swapping proxy cannot start a server, where another try would meet the same."""

_NO_MODEL = re.compile(
    r"\bmodel\b.*\b(?:not found|not exist|not available|unknown)\b|\b(?:unknown|no such) model|"
    r"\bcould not find (?:a |the |real )?model|\bno (?:router|handler)\b.*\bmodel\b",
    re.IGNORECASE | re.DOTALL,
)
_WANTS_HTTPS = re.compile(
    r"plain http request was sent to https|client sent an http request to an https server|"
    r"speaking plain http to an ssl|http request (?:was )?(?:sent|made) to (?:an? )?(?:https|ssl|tls)|"
    r"requires tls|combination of host and port requires tls|use https",
    re.IGNORECASE,
)
_WANTS_CERTIFICATE = re.compile(r"no required ssl certificate|ssl certificate error|client certificate", re.IGNORECASE)
_NO_CALL_IN_WORDS = re.compile(
    r"\bunexpected endpoint\b|\b(?:unknown|no such) (?:endpoint|route|path)\b|"
    r"\b(?:endpoint|route|page|path) (?:was |is )?not found\b|\bmethod not allowed\b|^(?:404 )?not found$",
    re.IGNORECASE,
)
"""LM Studio says so with status 200."""

_LOGIN = re.compile(
    r"\blog ?-?in\b|\blog ?-?on\b|\bsign ?-?in\b|\bsso\b|\boauth|\bauthenticat|\bcaptive\b|\bhot-?spot\b|\bportal\b|"
    r"\bwi-?fi\b|\bpassword\b|cdn-cgi/access|\bterms (?:of|and)\b",
    re.IGNORECASE,
)
_PLAN = re.compile(
    r"\busage limit\b|\brequires a subscription\b|\bupgrade (?:for access|to continue)\b|\binsufficient_quota\b",
    re.IGNORECASE,
)
"""What an account may do, at a cloud: no wait, and no rule of a proxy."""

_GATEWAY_STATUSES: Final = frozenset({502, 504, 520, 521, 522, 523, 524, 530})
_GAVE_UP_WAITING: Final = frozenset({504, 522, 524})
_NO_CALL: Final = frozenset({404, 405, 410, 421, 501})


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an exchange means.

    Attributes:
        message: For people: who, and what; one line, without a full stop.
        hint: What to do.
    """

    trouble: Trouble
    message: str
    hint: str | None = None


Rule = Callable[[Answer, Origin], Meaning | None]


def of_answer(answer: Answer, origin: Origin) -> Meaning:
    """Return what an answer means that is not the reply that was asked for."""
    for rule in _RULES:
        if (meaning := rule(answer, origin)) is not None:
            return meaning
    return Meaning(Trouble.REJECTED, f"{origin.node} answered {answer.status}" + _said(answer))


def of_words(text: str) -> Trouble | None:
    """Return whether a server says that it is not ready, busy, or has no such call; ``None`` for every other text."""
    if _LOADING.search(text) and not _NOT_LOADING.search(text):
        return Trouble.NOT_READY
    if _BUSY.search(text):
        return Trouble.BUSY
    return Trouble.NO_API if _NO_CALL_IN_WORDS.search(text) else None


def not_ready(origin: Origin, text: str) -> Meaning:
    """Return the meaning of a server that says ``text``, by which it is not ready."""
    said = f" ({text})" if text else ""
    return Meaning(Trouble.NOT_READY, f"{origin.node} is not ready yet{said}", WAITED_FOR)


def busy(origin: Origin, text: str) -> Meaning:
    """Return the meaning of a server that says ``text``, by which it has no time."""
    said = f" ({text})" if text else ""
    return Meaning(Trouble.BUSY, f"{origin.node} is busy{said}", WAITED_FOR)


def other_api(origin: Origin, text: str) -> Meaning:
    """Return the meaning of a server that says ``text``, by which it does not have the call that was sent."""
    message = f"{origin.node} answers, but has no such call: {text}"
    hint = f"is it the address of a {origin.program}?"
    return Meaning(Trouble.NO_API, message, hint.replace("a Ollama", "an Ollama"))


def of_page(body: bytes, origin: Origin) -> Meaning:
    """Return what a web page means where JSON was expected."""
    title = page_title(body)
    if _LOGIN.search(title) or b'type="password"' in body:
        return Meaning(Trouble.LOGIN_PAGE, f"{origin.node} sent a web page to log in at: {title!r}", _log_in(origin))
    return Meaning(
        Trouble.WEB_PAGE,
        f"{origin.node} sent a web page instead of a JSON object: {title!r}",
        f"a proxy or another program answers there: write the address of the {origin.program} itself",
    )


def of_other_text(body: bytes, origin: Origin) -> Meaning:
    """Return what a body means that is neither JSON nor a web page."""
    start = server_text(body, QUOTE_CHARACTERS)
    message = f"{origin.node} sent something else instead of a JSON object: {start!r}"
    return Meaning(Trouble.NO_API, message, OTHER_PROGRAM)


def _wrong_scheme(answer: Answer, origin: Origin) -> Meaning | None:
    if answer.status < 400:
        return None
    if origin.node.startswith("http:") and (
        _WANTS_HTTPS.search(answer.text) or _WANTS_HTTPS.search(page_text(answer.body))
    ):
        return speaks_https(origin)
    if _WANTS_CERTIFICATE.search(answer.text) or _WANTS_CERTIFICATE.search(page_text(answer.body)):
        return wants_certificate(origin)
    return None


def _plan(answer: Answer, origin: Origin) -> Meaning | None:
    if answer.status not in {402, 403, 429} or not _PLAN.search(answer.text):
        return None
    message = f"{origin.node} answered {answer.status}: the account there may not do this{answer.quoted}"
    return Meaning(Trouble.REJECTED, message, "take a local model, or wait until the account's limit is lifted")


def _access(answer: Answer, origin: Origin) -> Meaning | None:
    node, status = origin.node, answer.status
    if status == 401:
        return _unauthorised(answer, origin)
    if status in {403, 451}:
        return Meaning(
            Trouble.FORBIDDEN, f"{node} answered {status}: it refuses access{answer.quoted}", _let_in(answer, origin)
        )
    if status == 407:
        return Meaning(
            Trouble.PROXY_LOGIN,
            f"{node} answered 407: a proxy asks for credentials{answer.quoted}",
            f"write the address of the {origin.program} itself, which this machine reaches without a proxy",
        )
    if status == 511:
        message = f"{node} answered 511: the network asks for a login{answer.quoted}"
        return Meaning(Trouble.LOGIN_PAGE, message, _log_in(origin))
    return None


def _unauthorised(answer: Answer, origin: Origin) -> Meaning:
    node = origin.node
    if b"signin_url" in answer.body or "ollama signin" in answer.text.lower():
        message = f"{node} answered 401: this model runs in Ollama's cloud{answer.quoted}"
        return Meaning(Trouble.UNAUTHORISED, message, "run on that machine: ollama signin; or take a local model")
    if origin.secret:
        message = f"{node} answered 401: it does not accept the credentials{answer.quoted}"
        where = "check what the variable or the file of the node's secret holds"
        return Meaning(Trouble.UNAUTHORISED, message, where if origin.is_ollama else "start it with the same key")
    scheme = answer.header("www-authenticate").split(" ", 1)[0].strip(",").lower()
    message = f"{node} answered 401: it asks for credentials{answer.quoted}"
    return Meaning(Trouble.UNAUTHORISED, message, _ways_in(scheme, origin))


def _ways_in(scheme: str, origin: Origin) -> str:
    if not origin.is_ollama:
        return f"start the {origin.program} without an API key: the settings have none for it"
    match scheme:
        case "basic":
            return "give the node username and password_env (or password_file)"
        case "bearer":
            return "give the node token_env (or token_file)"
        case "digest" | "negotiate" | "ntlm" | "kerberos":
            return f"it wants {scheme.upper()}, which is not supported: have it take a token or basic authentication"
        case _:
            return "give the node token_env, token_file, or username and password_env"


def _let_in(answer: Answer, origin: Origin) -> str:
    if origin.secret:
        return "the credentials are known there and have no right to this"
    if origin.is_ollama and not answer.body.strip():
        return (
            "an Ollama that listens to its own machine alone refuses other names: set OLLAMA_HOST=0.0.0.0 there, or "
            "have the proxy send 'Host: localhost'"
        )
    return "a rule of the server, or of a proxy before it, keeps this machine out: have it let this machine in"


def _log_in(origin: Origin) -> str:
    return (
        "the network or a proxy wants a login first: log in with a browser, or write an address of the "
        f"{origin.program} that needs none"
    )


def _moved(answer: Answer, origin: Origin) -> Meaning | None:
    if not 300 <= answer.status < 400:
        return None
    node, status = origin.node, answer.status
    location = answer.header("location").strip()
    if not location:
        message = f"{node} answered {status} without saying where to{answer.quoted}"
        return Meaning(Trouble.WEB_PAGE, message, OTHER_PROGRAM)
    there = _absolute(location, origin)
    shown = server_text(there, 200)
    address = _address(there, origin.path)
    if address is None and _LOGIN.search(there.partition("://")[2]):
        message = f"{node} answered {status}: it sends calls to a login, {shown}"
        return Meaning(Trouble.LOGIN_PAGE, message, _log_in(origin))
    if address is None:
        hint = f"a proxy answers there: write the address of the {origin.program} itself"
        return Meaning(Trouble.MOVED, f"{node} answered {status}: it sends calls to {shown}", hint)
    if address == _address(f"{node}{origin.path}", origin.path):
        hint = "a rule of the proxy there turns in a circle: it must pass the calls on as they are"
        return Meaning(Trouble.MOVED, f"{node} answered {status}: it sends calls to {shown}", hint)
    return Meaning(Trouble.MOVED, f"{node} answered {status}: it has moved to {address}", f'write "{address}" instead')


def _absolute(location: str, origin: Origin) -> str:
    """Return where a redirect leads, without password, query and fragment."""
    try:
        parts = urlsplit(without_password(urljoin(f"{origin.node}{origin.path}", location)))
        return urlunsplit(parts._replace(query="", fragment=""))
    except ValueError:
        return location


def _address(url: str, path: str) -> str | None:
    """Return the address, as the settings have it, of a server whose ``path`` is at ``url``; ``None`` if it is not."""
    base = url.rstrip("/").removesuffix(path.rstrip("/")) if path else url
    if path and base == url.rstrip("/"):
        return None
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return None
    if parts.scheme == "http" and port is None:
        parts = parts._replace(netloc=f"{parts.netloc}:80")  # the settings would fill in another one
    return urlunsplit(parts).rstrip("/")


def _in_its_words(answer: Answer, origin: Origin) -> Meaning | None:
    """Read what the server says of itself; a web page is a proxy's, which has a rule of its own."""
    if answer.status < 400 or answer.is_page:
        return None
    said = f"{answer.status}: {answer.text}" if answer.text else str(answer.status)
    match of_words(answer.text):
        case Trouble.NOT_READY:
            return not_ready(origin, said)
        case Trouble.BUSY if answer.status >= 500 or answer.status == 429:
            return busy(origin, said)
    return not_ready(origin, said) if answer.status == 425 else None


def _model_or_context(answer: Answer, origin: Origin) -> Meaning | None:
    if not 400 <= answer.status < 500:
        return None
    said = f"{origin.node} answered {answer.status}{_said(answer)}"
    if is_context_overflow(answer.error):
        return Meaning(Trouble.CONTEXT, said)
    if not answer.is_page and answer.status in {400, 404} and _NO_MODEL.search(answer.text):
        return Meaning(Trouble.NO_MODEL, said, "synaptic models list shows what it has")
    return None


def _no_api(answer: Answer, origin: Origin) -> Meaning | None:
    if answer.status not in _NO_CALL:
        return None
    node, path = origin.node, origin.path or "such address"
    if answer.header("ngrok-error-code"):
        return _gateway_meaning(answer, origin)
    message = f"{node} has no {path} (it answered {answer.status}{_said(answer)})"
    error = answer.error
    if origin.is_ollama and isinstance(error, Mapping) and error.get("type") == "not_found_error":
        hint = 'it answers as llama-server does: name it as coordinator_url, with "backend": "llama-server"'
        return Meaning(Trouble.NO_API, message, hint)
    hint = f"is it the address of a {origin.program}, with the path that a proxy may serve it below?"
    return Meaning(Trouble.NO_API, message, hint.replace("a Ollama", "an Ollama"))


def _too_large(answer: Answer, origin: Origin) -> Meaning | None:
    if answer.status not in {413, 414, 431}:
        return None
    message = f"{origin.node} answered {answer.status}: the request is larger than it takes{answer.quoted}"
    return Meaning(Trouble.TOO_LARGE, message, "raise the limit of the proxy there (nginx: client_max_body_size)")


def _gateway(answer: Answer, origin: Origin) -> Meaning | None:
    status = answer.status
    if status in {525, 526}:
        message = f"{origin.node} answered {status}: its proxy does not believe the server behind it{answer.quoted}"
        return Meaning(Trouble.SERVER, message, "mend the certificate between the proxy and the server behind it")
    if status in _GATEWAY_STATUSES and not answer.is_page and _FOR_GOOD.search(answer.text):
        return None
    if status in _GATEWAY_STATUSES or (status == 503 and (answer.is_page or _is_proxys(answer.text))):
        return _gateway_meaning(answer, origin)
    return None


def _gateway_meaning(answer: Answer, origin: Origin) -> Meaning:
    proxy = server_text(answer.header("server"), 40)
    named = f"the proxy there ({proxy})" if proxy else "the proxy there"
    gave_up = answer.status in _GAVE_UP_WAITING
    what = "gave up waiting for" if gave_up else "gets no answer of"
    message = f"{origin.node} answered {answer.status}: {named} {what} the server behind it{answer.quoted}"
    hint = f"start the {origin.program} behind it"
    if gave_up:
        hint = "have the proxy wait longer (nginx: proxy_read_timeout), or load the model ahead"
    return Meaning(Trouble.GATEWAY, message, hint)


def _is_proxys(text: str) -> bool:
    words = text.lower()
    return any(part in words for part in ("upstream", "no available server", "no server is available", "gateway"))


def _server(answer: Answer, origin: Origin) -> Meaning | None:
    said = f"{answer.status}: {answer.text}" if answer.text else str(answer.status)
    if answer.status in {429, 503, 529}:
        return busy(origin, said)
    if answer.status >= 500 or answer.status == 408:
        return Meaning(Trouble.SERVER, f"{origin.node} answered {said}", "its log tells more")
    return None


def _page(answer: Answer, origin: Origin) -> Meaning | None:
    if answer.is_page:
        if answer.status < 300:
            return of_page(answer.body, origin)
        message = f"{origin.node} answered {answer.status} with a web page: {answer.text!r}"
        return Meaning(Trouble.WEB_PAGE, message, OTHER_PROGRAM)
    if answer.status < 400:
        message = f"{origin.node} answered {answer.status} where a reply was expected{answer.quoted}"
        return Meaning(Trouble.NO_API, message, OTHER_PROGRAM)
    return None


_RULES: Final[tuple[Rule, ...]] = (
    _wrong_scheme,
    _plan,
    _access,
    _moved,
    _in_its_words,
    _model_or_context,
    _no_api,
    _too_large,
    _gateway,
    _server,
    _page,
)


def speaks_https(origin: Origin) -> Meaning:
    """Return the meaning of a server that speaks https and was asked by http."""
    address = "https" + origin.node.removeprefix("http")
    return Meaning(Trouble.SPEAKS_HTTPS, f"{origin.node} speaks https, not http", f'write "{address}"')


def wants_certificate(origin: Origin) -> Meaning:
    """Return the meaning of a server that asks the client for a certificate."""
    return Meaning(
        Trouble.CLIENT_CERTIFICATE,
        f"{origin.node} asks for a certificate of the client",
        "that is not supported: have it take a token (token_env), or write an address that asks for none",
    )


def is_context_overflow(error: object) -> bool:
    """Tell llama.cpp's ``exceed_context_size_error`` from other rejections (server-common.cpp, ``error_type``)."""
    return isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error"


def page_text(body: bytes) -> str:
    """Return how a body reads, whatever it is, marks left in."""
    return body[:4096].decode(errors="replace")


def _said(answer: Answer) -> str:
    return f": {answer.text}" if answer.text else ""
