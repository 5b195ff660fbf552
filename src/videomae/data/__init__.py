"""Lists of any kind -> one checked manifest; rendered data sets."""
