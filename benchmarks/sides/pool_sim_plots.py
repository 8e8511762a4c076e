"""Draws the figures of ``pool_simulation.py``; it runs in an environment that has matplotlib.

Usage: ``python -m sides.pool_sim_plots DIR``, with the JSON on standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter, ScalarFormatter

STYLE = {
    "svg.hashsalt": "synapticllamas",  # the same figures give the same file
    "svg.fonttype": "path",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.grid": True,
    "grid.alpha": 0.3,
}
BLUE, ORANGE, GREY, GREEN = "#2166ac", "#d95f02", "#9a9a9a", "#1b7837"
KINDS = {"interactive": GREEN, "run": BLUE, "batch": ORANGE}


def main() -> None:
    """Draw everything into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    document = json.load(sys.stdin)
    with mpl.rc_context(STYLE):
        for name, draw in (
            ("load", _load),
            ("waiting", _waiting),
            ("herd", _herd),
            ("makespan", _makespan),
        ):
            figure = draw(document)
            figure.savefig(folder / f"pool-simulation-{name}.svg", metadata={"Date": None}, bbox_inches="tight")
            plt.close(figure)


def _load(document: dict[str, Any]) -> Any:
    large = document["large"]
    series = large["series"]
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 5.5), sharex=True)
    at = [one["at"] for one in series]
    upper.plot(at, [100 * one["offered"] for one in series], color=GREY, drawstyle="steps-pre", label="asked for")
    upper.plot(at, [100 * one["busy"] for one in series], color=BLUE, label="in use, by speed")
    upper.plot(at, [100 * one["places"] for one in series], color=BLUE, linestyle=":", label="places in use")
    upper.set_ylabel("% of the capacity")
    upper.set_ylim(0, 140)
    upper.legend(loc="lower right", fontsize=11)
    upper.set_title(f"{large['calls']:,} calls over {large['nodes']:,} nodes", fontsize=13)
    lower.fill_between(at, [one["waiting"] for one in series], color=ORANGE, alpha=0.7, linewidth=0)
    lower.set_ylabel("calls waiting")
    lower.set_xlabel("simulated seconds")
    return figure


def _waiting(document: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for kind, color in KINDS.items():
        curve = document["large"]["wait_curve"][kind]
        share = [100 * at / (len(curve) - 1) for at in range(len(curve))]
        axes.plot([max(wait, 0.01) for wait in curve], share, color=color, label=kind)
    axes.set_xscale("log")
    axes.set_xlabel("seconds waited for a place, at most (0.01: none)")
    axes.set_ylabel("% of the calls")
    axes.set_ylim(0, 101)
    axes.set_title("waiting, by priority; overload included", fontsize=13)
    axes.legend(fontsize=11, loc="lower right")
    return figure


def _herd(document: dict[str, Any]) -> Any:
    herd = document["herd"]
    figure, rows = plt.subplots(2, 2, figsize=(10, 6.5), sharey=True)
    for row, what in zip(rows, ("speeds 1 to 8", "all alike"), strict=True):
        policies = list(herd[what])[::-1]
        colors = [BLUE if policy == "ours" else GREY for policy in policies]
        for axes, (title, values) in zip(
            row,
            (
                ("mean seconds until complete", [herd[what][p]["response_seconds"]["mean"] for p in policies]),
                ("calls at the fullest node, a place", [herd[what][p]["longest_queue_a_place"] for p in policies]),
            ),
            strict=True,
        ):
            bars = axes.barh(policies, values, color=colors)
            axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=11)
            axes.set_xscale("log")
            axes.set_xlim(1, 2.5 * max(values))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(f"{what}: {title}", fontsize=11)
    figure.suptitle(
        f"{herd['schedulers']} schedulers that do not know of each other, {herd['nodes']} nodes", fontsize=13
    )
    figure.tight_layout()
    return figure


def _makespan(document: dict[str, Any]) -> Any:
    found = document["makespan"]
    policies = [policy for policy in found if isinstance(found[policy], dict)][::-1]
    figure, axes = plt.subplots(figsize=(8, 3.6))
    means = [100 * found[policy]["mean"] for policy in policies]
    bars = axes.barh(policies, means, color=[BLUE if policy.startswith("ours") else GREY for policy in policies])
    axes.bar_label(bars, labels=[f"{mean:.1f} %" for mean in means], padding=-90, color="white", fontsize=11)
    axes.plot([100 * found[policy]["worst"] for policy in policies], policies, "|", color="black", markersize=16)
    axes.axvline(100, color="black", linewidth=1)
    axes.set_xlim(0, 112)
    axes.set_xlabel("lower bound / makespan, % (mark: the worst set)")
    axes.set_title(f"{found['calls']} calls over nodes of speed 1, 2, 4, 8", fontsize=13)
    return figure


if __name__ == "__main__":
    main()
