"""The Moore-Penrose pseudo-inverse as a differentiable JAX primitive."""

from jaxpinv import sharded as sharded
from jaxpinv._lstsq import LstsqResult, lstsq, matrix_rank, null_projection
from jaxpinv._pinv import pinv, pinverse

__version__ = "0.1.0"

__all__ = ["LstsqResult", "lstsq", "matrix_rank", "null_projection", "pinv", "pinverse"]
