"""Examples, each a package that is run by its name: `python -m examples.beamforming`."""
