"""Time, memory and accuracy of `jaxpinv` next to those of its peers."""
