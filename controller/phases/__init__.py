"""The checks of each phase, one module a phase."""
