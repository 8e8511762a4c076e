"""The coordinator that distributed start leaves running in the background."""
