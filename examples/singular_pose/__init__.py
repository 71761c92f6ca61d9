"""An arm of seven joints on a line through a singular pose, truncated and damped."""
