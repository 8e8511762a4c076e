"""Data with something changed in it: what Hypothesis draws where no fuzzer says what to try next."""

from collections.abc import Sequence

from hypothesis import strategies as st

TIMES = (1, 1, 1, 1, 2, 40, 3000)
"""How often what is put in stands there: nesting without end has found more than single characters have."""


@st.composite
def changed(draw: st.DrawFn, seeds: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    """Return one of the seeds, with up to four parts of it replaced by pieces, bytes, or parts of another seed."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 4, 8, 40, len(data)))))
        data = data[:start] + _piece(draw, seeds, pieces) + data[end:]
    return data


def _piece(draw: st.DrawFn, seeds: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    match draw(st.sampled_from(("piece", "piece", "nothing", "bytes", "seed"))):
        case "piece":
            return draw(st.sampled_from(pieces)) * draw(st.sampled_from(TIMES))
        case "bytes":
            return draw(st.binary(max_size=8))
        case "seed":
            other = draw(st.sampled_from(seeds))
            start = draw(st.integers(0, len(other)))
            return other[start : start + draw(st.integers(0, 60))]
    return b""
