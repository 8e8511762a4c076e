"""The renderer: events in, a screen out. Live output is read from the screen of a terminal emulator."""

import io
import time

import pytest
from render_support import (
    ANSWER,
    BEGIN,
    COLUMNS,
    RESEARCH,
    ROWS,
    START,
    Terminal,
    finished,
    in_pipes,
    make_plan,
    on_terminal,
    run_finished,
    show,
    started,
)
from rich.console import Console

from synaptic.messages import BackendNotice, BackendProgress, Timings, Usage
from synaptic.runtime.events import (
    BackendReported,
    RunStarted,
    StepRepaired,
    StepRetried,
    TokenDelta,
)
from synaptic.ui.screen.render import make_renderer
from synaptic.ui.screen.render_live import ASCII, MOST_CHILDREN, LiveStatus, bar, layout
from synaptic.ui.screen.run_view import RunView, parent, place

PLANNED = finished("plan", timings=Timings(generation_seconds=1.5), first_token_seconds=0.25)

WHOLE_RUN = [
    BEGIN,
    started("plan"),
    TokenDelta("plan", "{}"),
    PLANNED,
    started("research", "map", width=2),
    started("research[0]"),
    started("research[1]"),
    finished("research[1]"),
    finished("research[0]"),
    finished("research", kind="map"),
    finished("refine", "skipped", kind="repeat", agent=None, started_at=None, ended_at=None),
    started("write", agent="writer"),
    TokenDelta("write", " \n"),
    TokenDelta("write", "Because of "),
    TokenDelta("write", "\x1b[31mphysics\x07."),
    finished("write"),
    run_finished(ANSWER, steps=[PLANNED, finished("write")]),
]


def test_lines_say_what_happens_where_stderr_is_no_terminal():
    out, lines = in_pipes(WHOLE_RUN)

    assert out == f"{ANSWER}\n"
    assert lines == [
        "plan: started (thinker, ollama/tiny:latest)",
        "plan: done, 45 tokens, 30 tok/s, 2.0 s",
        "research: started (2 ×, thinker)",
        "research[0]: started (thinker, ollama/tiny:latest)",
        "research[1]: started (thinker, ollama/tiny:latest)",
        "research[1]: done, 45 tokens, 2.0 s",
        "research[0]: done, 45 tokens, 2.0 s",
        "research: done, 90 tokens, 2.0 s",
        "refine: skipped",
        "write: started (writer, ollama/tiny:latest)",
        lines[10],
        "demo: 3.0 s · 2 calls · 90 tokens · 30 tok/s · tiny:latest on ollama",
    ]
    assert lines[10].startswith("write: done, 45 tokens")


def test_verbose_lines_add_the_route_and_what_was_measured():
    _, lines = in_pipes(WHOLE_RUN, verbose=True)

    assert lines[0] == "pipeline demo, route: ollama/tiny:latest@127.0.0.1:11434 (the only one)"
    assert "prompt 100 tokens, first token after 0.25 s" in lines[2]


def test_quiet_prints_the_answer_only():
    assert in_pipes(WHOLE_RUN, quiet=True) == (f"{ANSWER}\n", [])


def test_nothing_is_written_to_stdout_when_the_answer_is_not_wanted():
    out, lines = in_pipes(WHOLE_RUN, answer=False)

    assert out == ""
    assert lines[-1].startswith("demo: 3.0 s")


def test_the_answer_goes_to_a_pipe_whole_and_untouched():
    """A program gets what the model said, the restarted call left out, control characters left in."""
    events = [
        BEGIN,
        TokenDelta("write", "old"),
        StepRetried("write", 2, "cut", 0.0),
        TokenDelta("write", "new\x1b"),
        run_finished("new\x1b"),
    ]

    assert in_pipes(events)[0] == "new\x1b\n"


def test_the_tree_stays_once_and_the_answer_streams_below_it():
    screen = on_terminal(WHOLE_RUN).screen()

    text = "\n".join(screen)
    assert [line.split()[1] for line in screen[:2]] == ["plan", "research"]
    assert screen[0].split() == ["✓", "plan", "thinker", "ollama/tiny:latest", "45", "tok", "30", "tok/s", "2.0", "s"]
    assert screen[1].split()[:4] == ["✓", "research", "2/2", "thinker"]
    assert screen[2].startswith("├ ✓ research[0]")
    assert screen[3].startswith("└ ✓ research[1]")
    assert screen[4].split() == ["–", "refine", "skipped"]
    assert screen[5].startswith("▸ write")
    assert screen[5].endswith("answers below")
    assert screen[6:10] == [
        "",
        "Because of [31mphysics.",
        "",
        "demo: 3.0 s · 2 calls · 90 tokens · 30 tok/s · tiny:latest on ollama",
    ]
    assert text.count("plan") == 1
    assert not any(screen[10:])


def test_the_cursor_is_given_back():
    data = on_terminal(WHOLE_RUN).getvalue()

    assert data.rindex("\x1b[?25h") > data.rindex("\x1b[?25l")


def test_the_answer_is_printed_at_the_end_where_no_step_streams_it():
    plan = make_plan(RESEARCH.replace('result: "{{ steps.write }}"', 'result: "So: {{ steps.write }}"'))
    events = [
        RunStarted("r1", plan, START),
        started("write", agent="writer"),
        TokenDelta("write", "x"),
        finished("write"),
        run_finished("So: x"),
    ]

    screen = on_terminal(events).screen()

    assert screen[screen.index("So: x") - 1] == ""
    assert [line.split()[0] for line in screen[:4]] == ["·", "·", "·", "✓"]
    assert screen[0].endswith("not reached")


def test_a_restart_after_text_was_shown_is_said_and_the_answer_begins_anew():
    events = [
        BEGIN,
        TokenDelta("write", "Half an"),
        StepRetried("write", 2, "the stream stalled", 0.5),
        TokenDelta("write", "Whole."),
        run_finished("Whole."),
    ]

    screen = [line for line in on_terminal(events).screen()[4:] if line]

    assert screen[:4] == [
        "Half an",
        "write: attempt 2 in 0.5 s: the stream stalled",
        "the text above is void; the answer starts again",
        "Whole.",
    ]


def test_a_restart_is_said_even_when_quiet():
    events = [
        BEGIN,
        TokenDelta("write", "Half"),
        StepRepaired("write", "x"),
        TokenDelta("write", "W"),
        run_finished("W"),
    ]

    assert "the text above is void; the answer starts again" in on_terminal(events, quiet=True).screen()


def test_other_steps_are_told_after_the_answer():
    events = [
        BEGIN,
        started("research[0]"),
        TokenDelta("write", "The "),
        finished("research[0]", "failed", error="broken\x1b pipe"),
        TokenDelta("write", "answer."),
        run_finished("The answer."),
    ]

    screen = on_terminal(events).screen()

    assert screen.index("The answer.") < screen.index("research[0]: failed, 45 tokens, 2.0 s, broken pipe")


def test_an_interrupted_run_says_what_was_finished_and_keeps_the_partial_answer():
    steps = [finished("plan"), finished("write", "cancelled")]
    events = [BEGIN, TokenDelta("write", "Becau"), *steps, run_finished("Becau", "cancelled", steps)]

    screen = on_terminal(events).screen()
    out, lines = in_pipes(events, quiet=True)

    assert "Becau" in screen
    assert "interrupted after 3.0 s; finished: plan; cut off: write" in screen
    assert (out, lines) == ("Becau\n", ["interrupted after 3.0 s; finished: plan; cut off: write"])


def test_what_was_cut_off_is_named_in_the_order_in_which_it_began():
    steps = [finished("write", "cancelled", started_at=2.0), finished("plan", "cancelled", started_at=1.0)]

    _, lines = in_pipes([BEGIN, *steps, run_finished("", "cancelled", steps)], quiet=True)

    assert lines[-1].endswith("finished: nothing; cut off: plan, write")


def test_steps_that_still_ran_when_the_run_ended_are_shown_as_interrupted():
    events = [BEGIN, started("plan"), run_finished(status="cancelled")]

    screen = on_terminal(events).screen()

    assert screen[0].startswith("✗ plan")
    assert screen[0].endswith("interrupted")
    assert "interrupted after 3.0 s; finished: nothing" in screen


def test_what_the_run_itself_cancelled_says_why_and_is_not_called_interrupted():
    steps = [finished("plan", "cancelled", stop_reason="lost the race"), finished("write")]
    events = [BEGIN, started("plan"), *steps, run_finished(steps=steps)]

    screen = on_terminal(events).screen()
    _, lines = in_pipes(events)

    assert screen[0].startswith("✗ plan")
    assert screen[0].endswith("cut off, lost the race")
    assert any(line.startswith("plan: cut off") and line.endswith("lost the race") for line in lines)


def test_a_failed_run_is_summed_up_without_its_error():
    _, lines = in_pipes([BEGIN, run_finished("", "failed", usage=Usage())])

    assert lines == ["demo: failed after 3.0 s · 0 calls · 0 tokens"]


LATER = finished("write", started_at=START + 8, ended_at=START + 9, first_token_seconds=0.5)


@pytest.mark.parametrize(
    ("steps", "figures"),
    [
        ([finished("plan", "failed", attempts=2, usage=Usage(10, 10))], "2 calls · 10 tokens · 5 tok/s"),
        ([finished("plan", "skipped", attempts=3, usage=Usage())], "3 calls · 0 tokens · tiny"),
        ([finished("plan", timings=Timings(generation_seconds=0.5))], "1 call · 45 tokens · 90 tok/s"),
        ([finished("plan", first_token_seconds=1.5)], "1 call · 45 tokens · 90 tok/s"),
        ([finished("plan")], "1 call · 45 tokens · tiny"),
        (
            [finished(f"research[{at}]", timings=Timings(generation_seconds=1.5)) for at in (0, 1)],
            "90 tokens · 60 tok/s",
        ),
        (
            [finished("plan", first_token_seconds=1.0), LATER],
            "2 calls · 90 tokens · 60 tok/s",
        ),
    ],
)
def test_every_request_is_counted_and_waiting_is_not(steps, figures):
    tokens = sum(step.result.usage.completion_tokens for step in steps)
    _, lines = in_pipes([BEGIN, *steps, run_finished("x", usage=Usage(0, tokens), steps=steps)])

    assert figures in lines[-1]
    if len(steps) == 1 and "tok/s" in figures:
        assert figures.rpartition(" · ")[2] in lines[0], "its row says the same"


def test_a_cut_answer_is_named():
    _, lines = in_pipes([BEGIN, run_finished("x", stop_reason="length")])

    assert lines[-1].endswith("the answer was cut at its token limit")


def test_retries_and_repairs_are_lines():
    events = [
        BEGIN,
        StepRetried("plan", 2, "busy", 1.5),
        StepRepaired("plan", "no JSON"),
        finished("plan", attempts=3, stop_reason="length"),
    ]

    assert in_pipes(events)[1] == [
        "plan: attempt 2 in 1.5 s: busy",
        "plan: asked again: no JSON",
        "plan: done, 45 tokens, 22 tok/s, 2.0 s, 3 attempts, cut at its token limit",
    ]


def test_rounds_of_a_loop_are_counted():
    events = [BEGIN, started("refine", "repeat", None, width=2), started("refine[2].judge")]

    assert in_pipes(events)[1] == [
        "refine: started (at most 2 rounds)",
        "refine[2].judge: started (thinker, ollama/tiny:latest)",
    ]
    assert any("refine round 2/2" in line for line in on_terminal(events).screen())


def test_a_download_is_a_line_for_each_quarter():
    progress = [BackendReported(BackendProgress("embedded", "fetching", done, 80)) for done in range(0, 81, 10)]

    assert in_pipes(progress)[1] == [f"fetching: {share} % of 80 B" for share in (0, 25, 50, 75, 100)]


def test_a_download_of_unknown_size_is_one_line():
    progress = [BackendReported(BackendProgress("embedded", "fetching", done, None)) for done in (0, 10)]

    assert in_pipes(progress)[1] == ["fetching …"]


def test_a_download_is_a_bar_on_a_terminal_and_leaves_one_line():
    progress = [BackendReported(BackendProgress("embedded", "fetching", done, 94_000_000)) for done in (0, 47_000_000)]

    unfinished = on_terminal(progress)
    whole = BackendReported(BackendProgress("embedded", "fetching", 94_000_000, 94_000_000))
    complete = on_terminal([*progress, whole, whole])

    assert "47 MB of 94 MB  50%" in unfinished.getvalue() or "0 B of 94 MB" in unfinished.getvalue()
    assert [line for line in complete.screen() if line] == ["fetching: 94 MB"]


def test_notices_of_a_backend_are_shown_without_markup():
    events = [BEGIN, BackendReported(BackendNotice("embedded", "[bold]crashed[/bold]", "warning"))]

    assert in_pipes(events)[1] == ["embedded: [bold]crashed[/bold]"]
    assert "embedded: [bold]crashed[/bold]" in on_terminal(events).screen()


def test_warnings_of_a_pipeline_are_said_once():
    unread = "version: 1\nname: odd\ninputs: {tone: {}, size: {}}\nsteps: {write: {agent: writer, prompt: x}}\n"
    plan = make_plan(unread + "result: '{{ steps.write }}'\n")
    events = [RunStarted("r1", plan, START), RunStarted("r2", plan, START)]

    (line,) = in_pipes(events)[1]

    assert "3:10: warning: the input 'tone' is read nowhere; write {{ inputs.tone }} where it belongs" in line
    assert line.endswith(" (and 1 more: see pipelines validate)")
    assert sum("is read nowhere" in line for line in on_terminal(events).screen()) == 1
    assert in_pipes(events, quiet=True)[1] == []


def test_several_runs_are_shown_one_after_another():
    terminal = on_terminal([*WHOLE_RUN, *WHOLE_RUN])

    assert terminal.screen().count("Because of [31mphysics.") == 2
    assert sum("plan" in line for line in terminal.screen()) == 2


def test_a_tree_higher_than_the_terminal_is_not_repeated():
    events = [BEGIN, started("research", "map", width=30), *(started(f"research[{index}]") for index in range(30))]
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=COLUMNS, height=6, highlight=False)
    show(make_renderer(console=console, out=terminal), [*events, run_finished("A.")])

    shown = [line for line in terminal.screen(40) if line]

    assert sum(line.startswith("· plan") for line in shown) == 1
    assert len(shown) < 20
    assert any(f"{30 - MOST_CHILDREN + 1} more" in line for line in shown)


def test_children_that_failed_are_always_among_those_shown():
    status = LiveStatus(Console(file=io.StringIO(), width=100), verbose=False)
    for index in range(30):
        status.view.apply(started(f"research[{index}]"))
        status.view.apply(finished(f"research[{index}]", "failed" if index == 3 else "succeeded"))

    lines = [line.plain for line in status.lines(100, START)]

    assert any("research[3]" in line and "failed" in line for line in lines)
    assert any("research[29]" in line for line in lines)


def test_every_line_fits_the_terminal_whatever_its_width():
    status = LiveStatus(Console(file=io.StringIO(), width=100), verbose=True)
    for event in WHOLE_RUN[:-4]:
        status.view.apply(event)
    status.view.apply(StepRetried("write", 2, "a long story of what went wrong with this call " * 3, 0.0))

    widths = {width: [line.cell_len for line in status.lines(width, START)] for width in (20, 40, 60, 80, 120, 200)}

    assert all(cells <= width for width, lines in widths.items() for cells in lines)


def test_a_narrow_terminal_keeps_names_and_loses_columns():
    status = LiveStatus(Console(file=io.StringIO(), width=100), verbose=False)
    for event in WHOLE_RUN[:-4]:
        status.view.apply(event)

    first = status.lines(30, START)[0].plain

    assert first.split()[:2] == ["✓", "plan"]
    assert "ollama" not in first


def test_an_empty_table_has_no_lines():
    assert layout([], 80) == []


def test_glyphs_without_unicode():
    assert {ASCII.of(state, 0.0) for state in ("running", "failed", "waiting")} == {"|", "x", "."}


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "━"), ("ascii", "-")])
def test_the_bar_of_a_download(encoding: str, sign: str):
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=out, width=60, color_system=None)

    with console.capture() as shown:
        console.print(bar(BackendProgress("e", "x [b]", 5, 10)))
        console.print(bar(BackendProgress("e", "y", 5, None)))

    assert [line.rstrip() for line in shown.get().splitlines()] == [
        f"x [b]  {sign * 12:24}  5 B of 10 B  50%",
        "y  5 B",
    ]


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")

    terminal = on_terminal([BEGIN, started("plan")])

    assert "\x1b" not in terminal.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert "plan: started (thinker, ollama/tiny:latest)" in terminal.getvalue()


def test_a_run_that_succeeded_with_another_text_shows_that_one():
    events = [BEGIN, TokenDelta("write", "draft"), run_finished("final")]

    screen = on_terminal(events).screen()

    assert screen.index("draft") < screen.index("final")


def test_a_failed_run_does_not_repeat_what_was_streamed():
    events = [BEGIN, TokenDelta("write", "half"), run_finished("## plan\n\nother", "failed")]

    assert "other" not in on_terminal(events).screen()


def test_an_answer_step_without_visible_text_keeps_the_tree():
    events = [BEGIN, TokenDelta("write", "\n"), TokenDelta("plan", "x")]

    assert any("plan" in line and "1 tok" in line for line in on_terminal(events).screen())


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("plan", None),
        ("research[2]", "research"),
        ("refine[1].judge", "refine"),
        ("refine[1].judge[0]", "refine[1].judge"),
        ("refine[1].inner[2].judge", "refine[1].inner"),
    ],
)
def test_the_parent_of_a_path(path: str, above: str | None):
    assert parent(path) == above


def test_places():
    assert place("ollama", "llama3.1:8b", "http://desk:11434") == "ollama/llama3.1:8b@desk:11434"
    assert place("embedded", "smollm2", "embedded") == "embedded/smollm2"
    assert place("llama-server", None, None) == "llama-server"
    assert place(None, None, None) == ""


def test_a_running_step_has_its_rate_and_elapsed_time():
    view = RunView()
    view.apply(started("plan"))
    step = view.get("plan")
    assert step.elapsed(START + 5) == 5
    assert step.rate(START + 5) is None

    for _ in range(10):
        view.apply(TokenDelta("plan", "x"))

    assert step.state == "running"
    assert step.rate((step.first_token or 0) + 2) == pytest.approx(5)
    assert view.get("other").elapsed(START) is None


def test_a_repaired_step_counts_its_tokens_anew():
    view = RunView()
    for event in (started("plan"), TokenDelta("plan", "x"), StepRepaired("plan", "no JSON")):
        view.apply(event)

    assert (view.get("plan").tokens, view.get("plan").note) == (0, "asked again: no JSON")


def test_the_count_of_a_loop_without_a_known_bound():
    view = RunView()
    view.apply(started("refine", "repeat", None))
    assert view.get("refine").count() == ""
    view.apply(started("refine[3].judge"))

    assert view.get("refine").count() == "round 3"


def test_drawing_from_a_thread_of_its_own_shows_time_passing():
    """The tree is redrawn without any event, so that a slow first token is seen to be waited for."""
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=COLUMNS, height=ROWS)
    renderer = make_renderer(console=console, out=terminal)
    renderer.handle(BEGIN)
    drawn = len(terminal.getvalue())
    deadline = time.monotonic() + 10

    while len(terminal.getvalue()) == drawn and time.monotonic() < deadline:
        time.sleep(0.01)
    renderer.close()
    renderer.close()

    assert len(terminal.getvalue()) > drawn
