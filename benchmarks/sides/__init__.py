"""The sides that ``benchmarks/orchestration.py`` compares, each in a process of its own. No benchmark by itself."""
