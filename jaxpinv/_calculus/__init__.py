"""Derivatives of every order, from the factors of a matrix: pure functions of arrays."""
