"""The factorizations, and the proof of full rank that chooses one."""
