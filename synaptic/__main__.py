"""``python -m synaptic``: what ``synaptic`` is where it is not on the path."""

from synaptic.ui import main

main()
