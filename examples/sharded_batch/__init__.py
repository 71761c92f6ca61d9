"""A million matrices on all devices."""
