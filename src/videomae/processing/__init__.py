"""Frames -> pixels, on one path."""
