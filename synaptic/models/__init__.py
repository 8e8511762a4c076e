"""Models: their names, files and layers."""
