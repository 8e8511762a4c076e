"""Which layers go to which worker, and why; pure."""
