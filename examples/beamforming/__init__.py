"""Zero-forcing with antennas that move."""
