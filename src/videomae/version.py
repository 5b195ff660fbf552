"""The version, which stands above everything: nothing is imported to read it."""

__version__ = "0.1.0"
