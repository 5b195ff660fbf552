"""Built-in data sets of rendered videos."""
