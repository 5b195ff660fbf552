"""Lists of any kind -> one checked manifest."""
