"""Which signals tell a process to end."""

from __future__ import annotations

import signal

from synaptic.processes import endings


def test_a_closed_terminal_ends_what_was_not_started_under_nohup():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, ends in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            assert (signal.SIGHUP in endings()) is ends
            assert {signal.SIGINT, signal.SIGTERM} < {*endings(), signal.SIGHUP}
    finally:
        signal.signal(signal.SIGHUP, before)
