"""Batches, rows and processes over many devices."""
