"""Log lines: so many in a time, and no stack for what a client did."""

import logging

import pytest
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine, HttpProcessingError, InvalidHeader

from synaptic.server.limits.log_rate import LogRate


def record(error=None, text="one"):
    info = (type(error), error, None) if error else None
    return logging.LogRecord("x", logging.ERROR, "", 0, text, (), info)


def test_no_more_than_so_many_lines_pass_and_the_next_says_how_many_did_not():
    now = [0.0]
    rate = LogRate(2, 10.0, lambda: now[0])

    assert [rate.filter(record()) for _ in range(5)] == [True, True, False, False, False]
    now[0] = 10.0
    after, later = record(), record()
    assert rate.filter(after)
    assert rate.filter(later)
    assert after.getMessage() == "one (and 3 lines before it, left out)"
    assert later.getMessage() == "one"


def test_a_request_that_is_no_http_gets_one_line():
    bad = record(BadStatusLine("\x1b[2J\n\nGET"), "Error handling request from 127.0.0.1")

    assert LogRate().filter(bad)
    assert bad.exc_info is None
    assert "\x1b" not in bad.getMessage()
    assert "\n" not in bad.getMessage()


@pytest.mark.parametrize(
    "error",
    [
        BadHttpMessage("Invalid header value char:\n\n  b'Authorization: Bearer syn-secret\\x01'\n    ^"),
        InvalidHeader(b"x-api-key : syn-secret"),
        BadStatusLine("GET /?key=syn-secret HTTP/9"),
    ],
)
def test_the_key_in_a_request_that_is_no_http_is_not_logged(error: HttpProcessingError):
    bad = record(error, "Error handling request from 127.0.0.1")

    assert LogRate().filter(bad)
    assert "secret" not in bad.getMessage()
    assert bad.getMessage().partition(": ")[2].strip()


def test_a_fault_of_ours_keeps_its_stack():
    fault = record(RuntimeError("ours"))

    assert LogRate().filter(fault)
    assert fault.exc_info is not None
