"""Files <-> frames."""
