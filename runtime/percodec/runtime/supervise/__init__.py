"""Engines in a process of their own, watched and replaced; the health of a run."""
