"""Run SynapticLlamas from a checkout: ``python main.py "question"``. The same as the installed ``synaptic``."""

import os
import sys

# os.path, not pathlib: that costs 5 ms of a start, and the person waits.
OWN_PYTHON = os.path.join(os.path.dirname(os.path.abspath(__file__)), ".venv", "bin", "python")  # noqa: PTH100, PTH118, PTH120


def use_own_environment() -> None:
    """Go on with the interpreter that ``make ask`` set up, unless the person has activated one of their own."""
    own_is_there = os.access(OWN_PYTHON, os.X_OK)
    if sys.prefix == sys.base_prefix and own_is_there:
        os.execv(OWN_PYTHON, [OWN_PYTHON, *sys.argv])  # noqa: S606 - no shell is wanted
    try:
        import click  # noqa: F401, PLC0415 - stands for all libraries
    except ModuleNotFoundError:
        hint = "run `make ask`, or pip install -e '.[local]'"
        if own_is_there and os.path.dirname(os.path.dirname(OWN_PYTHON)) != sys.prefix:  # noqa: PTH120
            hint = f"deactivate this environment, or run {OWN_PYTHON} main.py"
        sys.stderr.write(f"error: the libraries of SynapticLlamas are not installed in {sys.prefix}\nhint: {hint}\n")
        sys.exit(2)


if __name__ == "__main__":
    try:
        use_own_environment()
        from synaptic.ui.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)
