"""Pipelines: YAML to spec to plan. Nothing here calls a model."""
