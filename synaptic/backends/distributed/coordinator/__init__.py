"""The coordinator: a llama-server that owns workers, started, watched and repaired."""
