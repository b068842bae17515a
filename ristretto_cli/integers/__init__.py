"""Trimmed nets as programs over integers: compiled, run, and described for hardware."""
