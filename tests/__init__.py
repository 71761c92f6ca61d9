"""Tests of jaxpinv."""
