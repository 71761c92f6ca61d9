"""Examples, each a package to run by its name: `python -m examples.beamforming`."""
