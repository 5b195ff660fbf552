"""The command line: one function or file per command."""
