"""The project itself: documentation, package, types and benchmarks."""
