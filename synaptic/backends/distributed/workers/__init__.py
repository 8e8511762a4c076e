"""RPC workers: what they say of themselves, and keeping those of this machine running."""
