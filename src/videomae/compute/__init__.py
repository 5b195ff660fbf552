"""Devices, precisions, threads and processes that a run computes on."""
