"""Fits a model whose columns may be dependent, and prints the rank that it finds.

    python -m examples.uncertain_rank

The third column is the sum of the others, except for noise. A solution that fits the noise
is far off. The tolerance states how accurate the data is.
"""

import jax
import jax.numpy as jnp

import jaxpinv
from examples import _command


def main() -> int:
    """Prints solutions for three tolerances; the exit status is 0 if one is right."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (50, 2))
    noise = 1e-4 * jax.random.normal(keys[1], (50,))
    columns = jnp.column_stack([x, x[:, 0] + x[:, 1] + noise])
    y = x @ jnp.array([1.0, 2.0]) + 0.01 * jax.random.normal(keys[2], (50,))
    fits = {rtol: jaxpinv.lstsq(columns, y, rtol) for rtol in (1e-6, 1e-3, 0.9)}
    for rtol, fit in fits.items():
        error = jnp.sqrt(fit.residuals / len(y))
        print(f"rtol {rtol:g}: rank {fit.rank}, x = {fit.solution}, error {error:.4f}")
    right = fits[1e-3]
    return 0 if right.rank == 2 and jnp.linalg.norm(right.solution) < 3 else 1


if __name__ == "__main__":
    _command.without_options(__package__, __doc__)
    raise SystemExit(main())
