"""The Moore-Penrose pseudo-inverse as a differentiable JAX primitive."""

from jaxpinv._api import pinv, pinverse

__all__ = ["pinv", "pinverse"]
