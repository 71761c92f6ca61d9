"""Least squares of uncertain rank in twenty lines."""
