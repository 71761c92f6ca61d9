"""A planar arm in twenty lines."""
