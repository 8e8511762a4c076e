"""What is fuzzed: every reader of what others wrote, each with inputs to begin with. See ``fuzz_property.py``.

``tests/whole/test_fuzz.py`` runs each for a moment with every other test, ``make fuzz`` for as long as you like.
"""

import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz_files import read_agent, read_chat_template, read_gguf, read_pipeline, read_settings, read_template
from fuzz_http import ASKS, read_http, read_rpc
from fuzz_property import ROOT, Reader, attempt

from synaptic.pipeline.templates.expressions import TemplateProblem

CORPUS = ROOT / "tests" / "corpus"
MOST_BYTES = 8192
"""Of an input to begin with."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader, and what to try on it.

    Attributes:
        read: Reads one input; is given a folder of its own.
        folders: Of inputs, beside its own folder of the corpus; relative to the checkout.
        ends: Suffixes of those inputs.
        pieces: What is put into inputs.
        refusals: Errors of one room that its callers turn into ours.

    """

    read: Reader
    pieces: tuple[bytes, ...]
    folders: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    refusals: tuple[type[Exception], ...] = ()

    def __call__(self, data: bytes) -> None:
        """Hold the reader to what must be true of every input."""
        attempt(self.read, data, self.refusals)


JSON = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"NaN", b"1e999", b"-1", b"9" * 400, b'"\\ud800"')
YAML = (
    b":",
    b"- ",
    b"\n",
    b"  ",
    b"*x",
    b"&x ",
    b"{{",
    b"}}",
    b"{",
    b"[",
    b"!!python/object:os.system ",
    b"|",
    b"<<: ",
)
JINJA = (
    *(b"{{", b"}}", b"{%", b"%}", b"(", b")", b"[", b"]", b"|", b".", b"-", b"not ", b" ~ ", b" ** ", b" * ", b"1"),
    *(b"inputs.a", b"inputs.l", b"steps.s.score", b"item", b"steps.skipped", b"__class__", b"__globals__", b"'%s' % "),
    *(b"{% for x in inputs.l %}", b"{% endfor %}", b"{% if x %}", b"{% endif %}", b"{% set x = [x, x] %}"),
    *(b"|tojson", b"|join", b"|map('upper')", b"|attr('x')", b"range(9)", b"{% macro m() %}", b"{% include 'x' %}"),
)
NUMBERS = (b"\0", b"\xff", b"\xff" * 8, b"\0" * 8, b"\x01" + b"\0" * 7, b"\0\0\0\0\0\0\0\x10", b"\x20\0\0")
HTTP = (
    *(b"\r\n", b"\n", b"data: ", b"data: [DONE]\n\n", b"event: x\n", b": ", b"HTTP/1.1 200 OK\r\n", b"503", b"200"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Type: text/html\r\n",
        b"Retry-After: 1e9\r\n",
        b"Content-Encoding: gzip\r\n",
    ),
    *(b'{"error":', b'"done":true', b'"message":', b'"content":', b'"choices":', b'"delta":', b"<html>", b"<think>"),
)

TARGETS = {
    "settings": Target(read=read_settings, pieces=JSON),
    "pipeline": Target(
        read=read_pipeline, pieces=YAML + JINJA, folders=("synaptic/pipeline/builtin", "examples"), ends=(".yaml",)
    ),
    "template": Target(read=read_template, pieces=JINJA, refusals=(TemplateProblem,)),
    "agent": Target(read=read_agent, pieces=(b"---\n", b"output:\n", *YAML), folders=("agents",), ends=(".md",)),
    "gguf": Target(read=read_gguf, pieces=NUMBERS),
    "chat-template": Target(read=read_chat_template, pieces=(b"{{ range .Messages }}", b"{{ end }}", b".Role", *JINJA)),
    "http": Target(read=read_http, pieces=(*(word + b"\n" for word in ASKS), *HTTP, *JSON)),
    "rpc": Target(read=read_rpc, pieces=NUMBERS),
}

PROPERTIES = {
    "runs": ("runtime/test_run_fuzz.py", "test_a_run_ends_and_tells_one_story"),
    "cancelled-runs": ("runtime/test_run_fuzz.py", "test_a_cancelled_run_leaves_nothing_behind"),
    "pipeline-data": ("pipeline/test_loader_fuzz.py", "test_any_data_over_the_known_keys"),
}
"""Tests of Hypothesis whose inputs a fuzzer can choose as well: what is read there is made by a strategy."""


def reader(name: str) -> Callable[[bytes], object]:
    """Return what to call with an input: a target, or a property under a fuzzer."""
    if name in TARGETS:
        return TARGETS[name]
    path, test = PROPERTIES[name]
    found: Callable[[bytes], object] = runpy.run_path(str(ROOT / "tests" / path))[test].hypothesis.fuzz_one_input
    return found


def seeds(name: str) -> Iterator[Path]:
    """Yield the inputs that a target begins with: its part of the corpus, and files that the program comes with."""
    if name in PROPERTIES:
        return
    target = TARGETS[name]
    yield from sorted((CORPUS / name).iterdir())
    for folder in target.folders:
        found = sorted((ROOT / folder).iterdir())
        yield from (path for path in found if path.suffix in target.ends and path.stat().st_size <= MOST_BYTES)
