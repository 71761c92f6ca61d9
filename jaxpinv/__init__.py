"""The Moore-Penrose pseudo-inverse as a differentiable JAX primitive."""

from importlib import metadata as _metadata

from jaxpinv import sharded as sharded
from jaxpinv._factorize import factorize
from jaxpinv._log_pdet import log_pdet
from jaxpinv._lstsq import lstsq
from jaxpinv._null_space import null_projection, null_space
from jaxpinv._pinv import pinv, pinverse
from jaxpinv._rank import matrix_rank
from jaxpinv._results import LstsqResult, NullSpaceResult
from jaxpinv._stored import Factorization

try:
    __version__ = _metadata.version("jaxpinv")
except _metadata.PackageNotFoundError:
    # The sources were copied, not installed.
    __version__ = "0+unknown"

__all__ = [
    "Factorization",
    "LstsqResult",
    "NullSpaceResult",
    "factorize",
    "log_pdet",
    "lstsq",
    "matrix_rank",
    "null_projection",
    "null_space",
    "pinv",
    "pinverse",
]
