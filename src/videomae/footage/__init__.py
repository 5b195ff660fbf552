"""Whole videos, and many of them: over time, as a batch job, searched."""
