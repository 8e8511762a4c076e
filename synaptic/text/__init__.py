"""Located problems, positions in JSON and YAML, and words for people."""
