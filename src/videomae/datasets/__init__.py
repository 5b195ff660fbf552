"""What a data set consists of: lists of any kind to one checked manifest."""
