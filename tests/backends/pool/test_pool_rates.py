"""What is learned of a node's speed from its calls."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.pool.learned.rates import FEW_SAMPLES, Rates, Sample, median_rates


def told(prompt, output, *, prompt_rate=500.0, output_rate=20.0, overhead=0.1, load=0.0, read=1.0) -> Sample:
    """Return the sample of a server that says how long it spent on what."""
    first = load + overhead + prompt / prompt_rate
    return Sample(
        first_token=first,
        total=first + output / output_rate,
        prompt_tokens=prompt,
        output_tokens=output,
        load=load,
        prompt=prompt / prompt_rate,
        output=output / output_rate,
        read=read,
    )


def test_nothing_is_known_before_the_first_call():
    rates = Rates()
    assert rates.seconds(1000, 1000) == 0
    assert rates.samples == 0 and rates.learned_at == inf
    assert rates.first_token_quantile(0.95) is None


def test_one_call_tells_everything_where_the_server_does():
    rates = Rates()
    rates.learn(told(1000, 200), now=12.0)
    assert rates.prompt_rate == pytest.approx(500)
    assert rates.output_rate == pytest.approx(20)
    assert rates.overhead == pytest.approx(0.1)
    assert rates.seconds(500, 100) == pytest.approx(0.1 + 1 + 5)
    assert rates.first_token == pytest.approx(2.1)
    assert (rates.samples, rates.learned_at) == (1, 12.0)


def test_loading_is_kept_apart():
    rates = Rates()
    rates.learn(told(1000, 200, load=30))
    assert rates.load_seconds == 30
    assert rates.seconds(1000, 200) == pytest.approx(12.1)
    assert rates.first_token == pytest.approx(2.1)
    rates.learn(told(1000, 200))
    assert rates.load_seconds == 30


def test_a_server_that_says_nothing_is_learned_from_the_clock():
    rates = Rates()
    for _ in range(50):
        rates.learn(Sample(first_token=2.0, total=12.0, prompt_tokens=1000, output_tokens=200))
    assert rates.seconds(1000, 200) == pytest.approx(12.0)
    assert rates.output_rate == pytest.approx(20)


def test_calls_count_by_their_size():
    rates = Rates()
    for _ in range(20):
        rates.learn(told(1000, 400))
    rates.learn(Sample(first_token=2.1, total=2.1001, prompt_tokens=1000, output_tokens=2, prompt=2.0, output=0.0001))
    assert rates.output_rate == pytest.approx(20, rel=0.01), "20,000 tokens a second in a reply of two say nothing"


def test_a_node_that_has_become_slow_is_known_after_a_few_calls():
    rates = Rates()
    for _ in range(20):
        rates.learn(told(1000, 200))
    fast = rates.seconds(1000, 200)
    for _ in range(5):
        rates.learn(told(1000, 200, output_rate=2.0, prompt_rate=50.0))
    assert rates.seconds(1000, 200) > 6 * fast
    for _ in range(25):
        rates.learn(told(1000, 200))
    assert rates.seconds(1000, 200) < 1.1 * fast


def test_the_expectation_is_right_on_average():
    rng = random.Random(7)
    rates = Rates()
    expected = real = 0.0
    for turn in range(4000):
        prompt, output = rng.randrange(100, 4000), rng.randrange(10, 800)
        sample = told(prompt, output, output_rate=rng.choice([10.0, 20.0, 30.0]), overhead=rng.uniform(0, 0.5))
        if turn > 100:
            expected += rates.seconds(prompt, output)
            real += sample.total
        rates.learn(sample)
    assert expected == pytest.approx(real, rel=0.05)


def test_a_call_without_tokens_is_learned_from_all_the_same():
    rates = Rates()
    rates.learn(Sample(first_token=0.0, total=3.0, prompt_tokens=0, output_tokens=0))
    assert rates.seconds(0, 0) == pytest.approx(3)
    assert rates.prompt_rate == rates.output_rate == 0


def test_a_call_that_was_given_up_makes_the_node_slower_only():
    rates = Rates()
    rates.learn(told(1000, 200))
    before = rates.seconds(1000, 200)
    rates.took_at_least(0.5)
    assert rates.seconds(1000, 200) == before
    rates.took_at_least(40)
    assert rates.seconds(1000, 200) > before + 5


def test_the_quantile_is_one_of_the_latest_times_to_the_first_token():
    rates = Rates()
    for tenth in range(FEW_SAMPLES - 1):
        rates.learn(Sample(first_token=tenth / 10, total=5, prompt_tokens=1, output_tokens=1))
    assert rates.first_token_quantile(0.95) is None
    for tenth in range(100):
        rates.learn(Sample(first_token=tenth / 10, total=20, prompt_tokens=1, output_tokens=1))
    assert rates.first_token_quantile(1.0) == pytest.approx(9.9)
    assert rates.first_token_quantile(0.5) == pytest.approx(6.7)
    assert rates.first_token_quantile(0.0) == pytest.approx(3.6), "64 are kept"


def test_a_new_node_is_taken_for_the_median_of_its_peers():
    peers = [Rates(prompt_rate=100.0 * n, output_rate=10.0 * n, load_seconds=n, samples=1) for n in (1, 2, 9)]
    median = median_rates([Rates(), *peers])
    assert (median.prompt_rate, median.output_rate, median.load_seconds) == (200, 20, 2)
    assert median_rates([Rates()]).seconds(10, 10) == 0


@given(
    st.lists(
        st.builds(
            Sample,
            first_token=st.floats(0, 100),
            total=st.floats(0, 1000),
            prompt_tokens=st.integers(0, 10**6),
            output_tokens=st.integers(0, 10**6),
            load=st.floats(0, 200),
            prompt=st.none() | st.floats(0, 100),
            output=st.none() | st.floats(0, 1000),
        ),
        max_size=20,
    )
)
def test_whatever_a_server_claims_nothing_takes_less_than_no_time(samples):
    rates = Rates()
    for sample in samples:
        rates.learn(sample)
    for field in (rates.prompt_rate, rates.output_rate, rates.overhead, rates.first_token, rates.load_seconds):
        assert 0 <= field < inf
    assert 0 <= rates.seconds(1000, 1000) < inf


def test_what_a_server_says_it_spent_on_a_loaded_model_is_no_load():
    rates = Rates()
    rates.learn(told(1000, 200, load=30.0))
    for _ in range(10):
        rates.learn(told(1000, 200, overhead=0.05))
    assert rates.load_seconds == 30.0


def test_what_a_server_has_in_its_cache_says_nothing_of_how_fast_it_reads():
    rates = Rates()
    rates.learn(told(2352, 100, prompt_rate=140.0))
    for _ in range(20):
        rates.learn(told(2352, 100, prompt_rate=30_000.0, read=None))
    assert rates.prompt_rate == pytest.approx(140)
    assert rates.overhead == pytest.approx(0.1)
    assert rates.seconds(2352, 0) == pytest.approx(16.9, abs=0.1)


def test_what_was_read_beside_a_little_that_was_in_the_cache_counts():
    rates = Rates()
    rates.learn(
        Sample(first_token=9.0, total=14.0, prompt_tokens=1000, output_tokens=100, prompt=9.0, output=5.0, read=0.9)
    )
    assert rates.prompt_rate == pytest.approx(100)
