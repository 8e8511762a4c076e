"""Agents: one Markdown file each, and the shape of what they answer."""
