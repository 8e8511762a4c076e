"""The command line as click has it, for the page of the documentation that is made from it."""

from synaptic.ui.root import build_root

synaptic = build_root()
