"""Every reader of what others wrote, on the whole corpus and on changed inputs. See ``fuzz_property.py``."""

import os

import pytest
from fuzz_mutations import changed
from fuzz_targets import TARGETS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

THOROUGH = os.environ.get("TESTS") == "thorough"
BEGINNINGS = {name: [path.read_bytes() for path in seeds(name)] for name in TARGETS}
EXAMPLES = {"pipeline": 60, "http": 250, "rpc": 120}
USUAL_EXAMPLES = 200
FUZZ = settings(deadline=None, derandomize=not THOROUGH, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus(name: str):
    for path in seeds(name):
        try:
            TARGETS[name](path.read_bytes())
        except BaseException as error:
            error.add_note(f"the input is {path}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_with_something_changed_in_them(name: str):
    target = TARGETS[name]
    examples = EXAMPLES.get(name, USUAL_EXAMPLES) * (50 if THOROUGH else 1)

    @settings(FUZZ, max_examples=examples)
    @given(changed(BEGINNINGS[name], target.pieces) | st.binary(max_size=60))
    def try_out(data: bytes) -> None:
        target(data)

    try_out()
