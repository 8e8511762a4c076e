"""Running plans: the executor, its events, its policies, and the session that owns the backends."""
