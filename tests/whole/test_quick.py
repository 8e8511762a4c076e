"""Which rooms ``make quick`` looks at."""

import os
import subprocess
import sys

import pytest
import quick

KNOWN = {"settings", "pipeline", "backends", "backends.pool", "backends.distributed.engine"}


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("synaptic/settings/model.py", "settings"),
        ("synaptic/pipeline/templates/expressions.py", "pipeline"),
        ("synaptic/backends/base.py", "backends"),
        ("synaptic/backends/pool/picker.py", "backends.pool"),
        ("synaptic/backends/poolside.py", "backends"),
        ("tests/backends/distributed/engine/test_engine.py", "backends.distributed.engine"),
        ("synaptic/errors.py", None),
        ("tests/support/quick.py", None),
        ("docs/settings/page.md", None),
    ],
)
def test_a_file_belongs_to_the_innermost_room(path: str, room: str | None):
    assert quick.room_of(path, KNOWN) == room


def test_rooms_that_import_most_come_first():
    imports = [
        ("synaptic.backends.router", "synaptic.settings"),
        ("synaptic.pipeline.loader", "synaptic.settings"),
        ("synaptic.pipeline.templates.limits", "synaptic.settings"),
        ("synaptic.settings.model", "synaptic.settings.endpoints"),
        ("synaptic.backends.pool.picker", "synaptic.errors"),
        ("synaptic.messages", "synaptic.settings"),
    ]

    assert quick.importers({"settings"}, imports, KNOWN) == ["pipeline", "backends"]
    assert quick.importers({"settings", "backends"}, imports, KNOWN) == ["pipeline"]
    assert quick.importers({"errors"}, imports, KNOWN) == ["backends.pool"]


def test_every_room_of_the_package_has_tests():
    known = quick.rooms()

    assert {"settings", "runtime", "backends.pool", "backends.distributed.engine"} <= known
    assert all(quick.tests_by_room(known).values())


def test_an_unknown_room_is_named_with_those_there_are():
    command = [sys.executable, quick.__file__, "setings"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))

    assert done.returncode == 2
    assert "no room is named setings; there are: agents, " in done.stderr
