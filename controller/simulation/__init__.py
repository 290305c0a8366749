"""Deterministic simulation: the real controller against a world of faults, on a virtual clock; see `runner.py`."""
