"""What a run computes on: devices, precisions, threads, processes."""
