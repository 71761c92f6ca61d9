"""Features learned through a least-squares head."""
