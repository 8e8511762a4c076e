"""What an answer means that is none: a row for every server and proxy, with the words and the hint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from synaptic.backends.http.answer import Answer, page_title
from synaptic.backends.http.error_map import CLASSES, error_of
from synaptic.backends.http.meaning import of_answer, of_words
from synaptic.backends.http.origin import Origin
from synaptic.errors import BackendBusy, BackendError, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE = "http://desk:11434"
OLLAMA = Origin("ollama", NODE, "/api/chat")
LLAMA = Origin("llama-server", "http://desk:8080", "/v1/chat/completions")
WITH_SECRET = Origin("ollama", NODE, "/api/chat", secret=True)

T = Trouble


def page(title: str, text: str = "") -> bytes:
    return f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>{text or title}</body></html>".encode()


def said(body: object, headers: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, str]]:
    """Return a body and its headers as a server would send them."""
    if isinstance(body, bytes):
        kind = "text/html" if body.lstrip().startswith(b"<") else "text/plain; charset=utf-8"
        return body, {"content-type": kind, **(headers or {})}
    return json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})}


NGINX = {"server": "nginx/1.27.3"}
CLOUDFLARE = {"server": "cloudflare"}

ROWS: list[tuple[str, int, object, Mapping[str, str], Trouble, str, str]] = [
    # who, status, body, headers, what it means, a part of the message, a part of the hint
    (
        "Ollama loads",
        500,
        {"error": "llm server loading model"},
        {},
        T.NOT_READY,
        "not ready yet (500: llm",
        "wait for",
    ),
    (
        "Ollama of 2024 loads",
        500,
        {"error": "unexpected server status: llm server loading model"},
        {},
        T.NOT_READY,
        "loading model",
        "wait for",
    ),
    ("Ollama's runner starts", 500, {"error": "llm server launched"}, {}, T.NOT_READY, "not ready yet", "wait for"),
    (
        "llama-server loads",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        {},
        T.NOT_READY,
        "not ready yet (503: Loading model)",
        "wait for",
    ),
    ("llama-server of 2024 loads", 503, {"status": "loading model"}, {}, T.NOT_READY, "loading model", "wait for"),
    ("Hugging Face", 503, {"error": "Model gpt2 is currently loading"}, {}, T.NOT_READY, "gpt2", "wait for"),
    ("TabbyAPI", 503, {"detail": "The model is still loading."}, {}, T.NOT_READY, "still loading", "wait for"),
    ("a health check", 500, b"server is starting up", {}, T.NOT_READY, "starting up", "wait for"),
    ("a status page", 503, {"message": "Service is initializing"}, {}, T.NOT_READY, "initializing", "wait for"),
    ("TLS early data", 425, b"", {}, T.NOT_READY, "425", "wait for"),
    ("llama-swap swaps", 502, {"error": "unable to start process"}, {}, T.GATEWAY, "unable to start", "start the"),
    (
        "llama-swap swaps, text",
        502,
        b"process was already starting but wound up in state stopping",
        {},
        T.NOT_READY,
        "",
        "",
    ),
    (
        "llama-swap cannot start it",
        502,
        b"unable to start process: upstream command exited prematurely with error: exit status 1",
        {},
        T.SERVER,
        "exited prematurely",
        "log",
    ),
    (
        "Ollama is busy",
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        {},
        T.BUSY,
        "is busy (503: server busy",
        "wait for",
    ),
    ("Ollama has no slot", 500, {"error": "llm busy - no slots available"}, {}, T.BUSY, "no slots", "wait for"),
    ("TGI", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, {}, T.BUSY, "overloaded", "wait for"),
    ("KoboldCpp", 503, {"detail": {"msg": "Server is busy; please try again later."}}, {}, T.BUSY, "is busy", ""),
    (
        "a cloud's weekly limit",
        429,
        {"error": "you have reached your weekly usage limit, please upgrade to continue"},
        {},
        T.REJECTED,
        "the account there may not do this (you have reached",
        "take a local model",
    ),
    (
        "a model of a cloud's plan",
        403,
        {"error": "this model requires a subscription, upgrade for access: https://ollama.com/upgrade"},
        {},
        T.REJECTED,
        "the account there may not do this (this model",
        "take a local model",
    ),
    ("a limit of calls", 429, {"error": "slow down"}, {}, T.BUSY, "(429: slow down)", "wait for"),
    ("Anthropic's API", 529, {"error": {"message": "Overloaded"}}, {}, T.BUSY, "Overloaded", "wait for"),
    ("503 and no word", 503, b"", {}, T.BUSY, "is busy (503)", "wait for"),
    (
        "nginx 502",
        502,
        page("502 Bad Gateway"),
        NGINX,
        T.GATEWAY,
        "the proxy there (nginx/1.27.3) gets no",
        "start the Ol",
    ),
    ("nginx 503", 503, page("503 Service Temporarily Unavailable"), NGINX, T.GATEWAY, "gets no answer", "start the Ol"),
    ("nginx 504", 504, page("504 Gateway Time-out"), NGINX, T.GATEWAY, "gave up waiting", "proxy_read_timeout"),
    ("Caddy 502", 502, b"", {"server": "Caddy"}, T.GATEWAY, "(Caddy) gets no answer", "start the Ollama"),
    ("Traefik 502", 502, b"Bad Gateway", {}, T.GATEWAY, "(Bad Gateway)", "start the Ollama"),
    ("Traefik 503", 503, b"no available server\n", {}, T.GATEWAY, "no available server", "start the Ollama"),
    ("Traefik 504", 504, b"Gateway Timeout", {}, T.GATEWAY, "gave up waiting", "proxy_read_timeout"),
    (
        "HAProxy 503",
        503,
        b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available.\n</body></html>",
        {},
        T.GATEWAY,
        "503 Service Unavailable",
        "start the Ollama",
    ),
    ("Envoy", 503, b"no healthy upstream", {"server": "envoy"}, T.GATEWAY, "(envoy)", "start the Ollama"),
    (
        "Envoy resets",
        503,
        b"upstream connect error or disconnect/reset before headers",
        {},
        T.GATEWAY,
        "upstream",
        "start",
    ),
    ("Apache", 502, page("502 Proxy Error"), {"server": "Apache"}, T.GATEWAY, "Proxy Error", "start the Ollama"),
    ("Cloudflare 520", 520, b"error code: 520", CLOUDFLARE, T.GATEWAY, "(cloudflare) gets no answer", "start the"),
    ("Cloudflare 521", 521, page("desk | 521: Web server is down"), CLOUDFLARE, T.GATEWAY, "is down", "start the"),
    ("Cloudflare 522", 522, b"error code: 522", CLOUDFLARE, T.GATEWAY, "gave up waiting", "wait longer"),
    ("Cloudflare 523", 523, b"error code: 523", CLOUDFLARE, T.GATEWAY, "gets no answer", "start the"),
    ("Cloudflare 524", 524, b"error code: 524", CLOUDFLARE, T.GATEWAY, "gave up waiting", "wait longer"),
    ("Cloudflare 526", 526, b"error code: 526", CLOUDFLARE, T.SERVER, "does not believe", "certificate"),
    ("Cloudflare's tunnel", 530, b"error code: 1033", CLOUDFLARE, T.GATEWAY, "1033", "start the"),
    ("ngrok", 404, page("ngrok"), {"ngrok-error-code": "ERR_NGROK_3200"}, T.GATEWAY, "gets no answer", "start the"),
    ("Ollama fails", 500, {"error": "boom"}, {}, T.SERVER, "answered 500: boom", "log"),
    (
        "a load that failed",
        500,
        {"error": "error loading model: unknown architecture"},
        {},
        T.SERVER,
        "architecture",
        "",
    ),
    (
        "a load that took too long",
        500,
        {"error": "timed out waiting for server to finish loading"},
        {},
        T.SERVER,
        "",
        "",
    ),
    (
        "LocalAI cannot load",
        500,
        {"error": {"code": 500, "message": "could not load model: rpc error: code = Unavailable desc = EOF"}},
        {},
        T.SERVER,
        "could not load model",
        "log",
    ),
    ("a text that speaks of starting", 500, {"error": "bad token starting at 5"}, {}, T.SERVER, "starting at 5", ""),
    ("408", 408, b"", {}, T.SERVER, "answered 408", ""),
    (
        "401",
        401,
        b"",
        {},
        T.UNAUTHORISED,
        "answered 401: it asks for credentials",
        "token_env, token_file, or username",
    ),
    ("401 in JSON", 401, {"error": "unauthorized"}, {}, T.UNAUTHORISED, "credentials (unauthorized)", "token_env"),
    (
        "nginx 401",
        401,
        page("401 Authorization Required"),
        {"www-authenticate": "Basic realm=x"},
        T.UNAUTHORISED,
        "",
        "usern",
    ),
    ("a bearer", 401, b"", {"www-authenticate": 'Bearer realm="x"'}, T.UNAUTHORISED, "", "give the node token_env"),
    ("NTLM", 401, b"", {"www-authenticate": "NTLM"}, T.UNAUTHORISED, "", "NTLM, which is not supported"),
    ("Open WebUI", 401, {"detail": "Not authenticated"}, {}, T.UNAUTHORISED, "(Not authenticated)", "token_env"),
    ("Kong", 401, {"message": "No API key found in request"}, {}, T.UNAUTHORISED, "No API key found", "token_env"),
    ("Ollama's cloud", 401, {"error": "unauthorized", "signin_url": "u"}, {}, T.UNAUTHORISED, "cloud", "ollama signin"),
    ("403, Ollama's", 403, b"", {}, T.FORBIDDEN, "answered 403: it refuses access", "OLLAMA_HOST=0.0.0.0"),
    (
        "nginx 403",
        403,
        page("403 Forbidden"),
        NGINX,
        T.FORBIDDEN,
        "(403 Forbidden)",
        "rule of the server, or of a proxy",
    ),
    ("a filter", 451, page("Blocked"), {}, T.FORBIDDEN, "answered 451", "rule"),
    ("407", 407, b"", {}, T.PROXY_LOGIN, "answered 407: a proxy asks for credentials", "address of the Ollama itself"),
    ("Squid 407", 407, page("ERROR: Cache Access Denied"), {}, T.PROXY_LOGIN, "Access Denied", "itself"),
    ("511", 511, page("Network login"), {}, T.LOGIN_PAGE, "the network asks for a login", "log in with a browser"),
    ("Ollama lacks a route", 404, b"404 page not found", {}, T.NO_API, "has no /api/chat", "the address of an Ollama"),
    ("a route, in JSON", 404, {"error": "no such route"}, {}, T.NO_API, "no such route", "address of an Ollama"),
    ("a web server", 404, page("404 Not Found"), NGINX, T.NO_API, "has no /api/chat", "address of an Ollama"),
    ("FastAPI", 404, {"detail": "Not Found"}, {}, T.NO_API, "(it answered 404: Not Found)", "address of an Ollama"),
    ("POST is not taken", 405, {"detail": "Method Not Allowed"}, {}, T.NO_API, "405", "address of an Ollama"),
    ("Python's files", 501, page("Error response"), {}, T.NO_API, "501", "address of an Ollama"),
    ("an unknown name", 421, b"Misdirected Request", {}, T.NO_API, "421", "address"),
    (
        "a llama-server",
        404,
        {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
        {},
        T.NO_API,
        "has no /api/chat",
        "coordinator_url",
    ),
    (
        "vLLM lacks it",
        404,
        {"error": {"message": "The model `x` does not exist."}},
        {},
        T.NO_MODEL,
        "does not exist",
        "",
    ),
    ("OpenAI's API", 404, {"error": {"message": "The model 'x' was not found"}}, {}, T.NO_MODEL, "not found", ""),
    ("llama-swap lacks it", 400, b"could not find model 'x'", {}, T.NO_MODEL, "could not find", ""),
    (
        "another host",
        301,
        b"",
        {"location": "http://gpu:8080/api/chat"},
        T.MOVED,
        "moved to http://gpu:8080",
        '"http://gpu:8080"',
    ),
    (
        "to https",
        308,
        b"",
        {"location": "https://desk/api/chat"},
        T.MOVED,
        "moved to https://desk",
        'write "https://desk"',
    ),
    ("to port 80", 302, b"", {"location": "http://gpu/api/chat"}, T.MOVED, "", 'write "http://gpu:80"'),
    ("below a path", 307, b"", {"location": "/ollama/api/chat"}, T.MOVED, "", f'write "{NODE}/ollama"'),
    ("a slash more", 301, b"", {"location": "/api/chat/"}, T.MOVED, "it sends calls to", "turns in a circle"),
    (
        "somewhere",
        302,
        b"",
        {"location": "https://example.test/"},
        T.MOVED,
        "https://example.test/",
        "write the address",
    ),
    ("a login", 302, b"", {"location": "/login?next=%2Fapi"}, T.LOGIN_PAGE, "to a login", "log in with a browser"),
    (
        "oauth2-proxy",
        302,
        b"",
        {"location": "https://a.test/oauth2/start?rd=x"},
        T.LOGIN_PAGE,
        "oauth2/start",
        "browser",
    ),
    (
        "Cloudflare Access",
        302,
        b"",
        {"location": "https://t.cloudflareaccess.com/cdn-cgi/access/login/x?kid=1"},
        T.LOGIN_PAGE,
        "to a login",
        "browser",
    ),
    ("a hotspot", 302, b"", {"location": "http://captive.portal.test/"}, T.LOGIN_PAGE, "to a login", "browser"),
    ("nowhere", 302, page("It works!"), {}, T.WEB_PAGE, "302 without saying where to (It works!)", "another program"),
    ("a broken address", 301, b"", {"location": "http://[x/"}, T.MOVED, "sends calls to http://[x/", "a proxy"),
    (
        "a hotspot's page",
        200,
        page("Guest Wi-Fi"),
        {},
        T.LOGIN_PAGE,
        "a web page to log in at: 'Guest Wi-Fi'",
        "browser",
    ),
    ("a login page", 200, b"<html><body>login please</body></html>", {}, T.LOGIN_PAGE, "'login please'", "log in"),
    (
        "a form",
        200,
        page("Welcome", '<input type="password">'),
        {},
        T.LOGIN_PAGE,
        "'Welcome'",
        "log in with a browser",
    ),
    (
        "a page",
        200,
        page("It works &amp; more"),
        {},
        T.WEB_PAGE,
        "a web page instead of a JSON object: 'It works & more'",
        "",
    ),
    ("an empty success", 204, b"", {}, T.NO_API, "answered 204 where a reply was expected", ""),
    (
        "nginx by https",
        400,
        page("400 The plain HTTP request was sent to HTTPS port"),
        NGINX,
        T.SPEAKS_HTTPS,
        "speaks https, not http",
        'write "https://desk:11434"',
    ),
    (
        "Go by https",
        400,
        b"Client sent an HTTP request to an HTTPS server.\n",
        {},
        T.SPEAKS_HTTPS,
        "speaks https",
        'write "https://desk:11434"',
    ),
    (
        "Apache by https",
        400,
        page("400 Bad Request", "Reason: You're speaking plain HTTP to an SSL-enabled server port."),
        {},
        T.SPEAKS_HTTPS,
        "speaks https",
        "https://",
    ),
    (
        "a certificate is wanted",
        400,
        page("400 No required SSL certificate was sent"),
        NGINX,
        T.CLIENT_CERTIFICATE,
        "",
        "",
    ),
    (
        "nginx's limit",
        413,
        page("413 Request Entity Too Large"),
        NGINX,
        T.TOO_LARGE,
        "larger than",
        "client_max_body_size",
    ),
    ("a bad request", 400, {"error": "invalid option: 401"}, {}, T.REJECTED, "answered 400: invalid option: 401", ""),
    ("a validation", 422, {"detail": [{"msg": "field required"}]}, {}, T.REJECTED, "answered 422", ""),
    ("a page and 418", 418, page("A teapot"), {}, T.WEB_PAGE, "answered 418 with a web page: 'A teapot'", ""),
    (
        "a prompt that is too long",
        400,
        {"error": {"type": "exceed_context_size_error", "message": "too long"}},
        {},
        T.CONTEXT,
        "too long",
        "",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[1]} {row[0]}")
def test_what_an_answer_means(row: tuple[str, int, object, Mapping[str, str], Trouble, str, str]) -> None:
    _, status, body, headers, trouble, words, advice = row
    content, sent = said(body, headers)
    meaning = of_answer(Answer(status, sent, content), OLLAMA)
    assert meaning.trouble is trouble, meaning
    assert words in meaning.message
    assert advice in (meaning.hint or "")
    assert meaning.message.startswith(NODE)
    assert "\n" not in meaning.message
    assert meaning.hint or trouble in {T.REJECTED, T.CONTEXT}


def test_every_trouble_has_a_class_and_the_rows_name_all_that_an_answer_can_mean() -> None:
    assert set(CLASSES) == set(Trouble)
    before_an_answer = {
        *(T.NO_ADDRESS, T.CLOSED_HERE, T.NO_NAME, T.NOT_LISTENING, T.NO_ROUTE, T.NO_CONNECTION, T.NO_ANSWER),
        *(T.CERTIFICATE, T.SPEAKS_HTTP, T.NO_ENCRYPTION, T.NOT_HTTP),
    }
    assert {row[4] for row in ROWS} == set(Trouble) - before_an_answer


@pytest.mark.parametrize("trouble", [T.NOT_READY, T.GATEWAY, T.BUSY])
def test_what_passes_by_itself_is_waited_for(trouble: Trouble) -> None:
    assert issubclass(CLASSES[trouble], BackendBusy)


def test_credentials_that_were_sent_are_not_asked_for_again() -> None:
    meaning = of_answer(Answer(401, {}, b'{"error":"unauthorized"}'), WITH_SECRET)
    assert "it does not accept the credentials (unauthorized)" in meaning.message
    assert meaning.hint == "check what the variable or the file of the node's secret holds"
    assert "no right" in (of_answer(Answer(403, {}, b""), WITH_SECRET).hint or "")


def test_a_llama_server_has_hints_of_its_own() -> None:
    key = of_answer(Answer(401, {}, b'{"error":{"message":"Invalid API Key"}}'), LLAMA)
    assert key.hint == "start the llama-server without an API key: the settings have none for it"
    route = of_answer(Answer(404, {}, b"404 page not found"), LLAMA)
    assert "has no /v1/chat/completions" in route.message
    assert "the address of a llama-server" in (route.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "a model that describes loading docks",
        "the pallet was loading slowly",
        "failed to load model",
        "error loading model: x",
        "model not found, try pulling it first",
        "unable to load model",
        "timed out waiting for llama runner to start: loading model",
        "device or resource busybox",
        "",
    ],
)
def test_texts_that_only_speak_of_such_things(text: str) -> None:
    assert of_words(text) is None


def test_secrets_are_not_repeated() -> None:
    origin = Origin("ollama", "http://me:hunter2@desk:11434", "/api/chat")
    location = "http://me:hunter2@gpu:1/api/chat?token=hunter2"
    for status in (301, 302, 401, 404, 500):
        error = error_of(of_answer(Answer(status, {"location": location}, b""), origin), origin)
        assert "hunter2" not in f"{error} {error.node}"


def test_a_hostile_page_is_read_in_no_time_and_shown_in_a_line() -> None:
    for body in (
        b"<!--" * 20_000,
        b"<script>" * 9_000,
        b"<title>" * 9_000,
        b"<h1" * 30_000,
        b"\xff\x00\x1b[2J" * 9_000,
    ):
        assert len(page_title(body)) <= 80
        error: BackendError = error_of(of_answer(Answer(502, {"content-type": "text/html"}, body), OLLAMA), OLLAMA)
        assert "\x1b" not in error.message
