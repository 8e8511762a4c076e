"""The settings: read, described, changed."""
