"""Factorizations of batches of tall matrices: pure functions of arrays."""
