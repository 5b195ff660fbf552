"""Checkpoints <-> models."""
