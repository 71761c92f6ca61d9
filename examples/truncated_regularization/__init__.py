"""A camera shutter learned through a truncated pseudo-inverse."""
