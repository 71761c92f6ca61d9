"""Variable projection: the nonlinear parameters by Newton, the linear ones by `pinv`."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import jaxpinv
from examples.variable_projection import nist
from examples.variable_projection.models import Model
from examples.variable_projection.table import Fit

#: The objective is a sine and the parameters are logarithms, so both limits are relative.
#: They are tens and hundreds of rounding errors of double precision.
GRADIENT_LIMIT = 1e-14
STEP_LIMIT = 1e-13
MAX_ITERATIONS = 200

#: Rounding error of the objective, which the line search does not count as an increase.
OBJECTIVE_NOISE = 1e-15


class Search(NamedTuple):
    """State of the optimization; every array has the axis of the starts in front."""

    theta: Array
    optimizer: optax.OptState
    iterations: Array
    gradient: Array
    step: Array
    loss: Array


def newton() -> optax.GradientTransformationExtraArgs:
    """Turns a gradient into a descending Newton step, for `optax.chain`.

    The step uses absolute values of the eigenvalues of the Hessian, which is indefinite far
    from the solution. Steps longer than one, a factor e in the parameters, are shortened:
    the quadratic model does not hold further away. The absolute values and the cap together
    do what damping does.
    """

    def update(
        gradient: Array,
        state: optax.EmptyState,
        params: Array,
        *,
        value_fn: Callable[[Array], Array],
        **unused: Array,
    ) -> tuple[Array, optax.EmptyState]:
        curvatures, directions = jnp.linalg.eigh(jax.hessian(value_fn)(params))
        curvatures = jnp.abs(curvatures)
        # Directions that are flat to rounding would give unbounded steps.
        curvatures = jnp.maximum(curvatures, 1e-12 * curvatures.max())
        step = -directions @ ((directions.T @ gradient) / curvatures)
        return step / jnp.maximum(1, jnp.linalg.norm(step)), state

    # The types of optax are those of general trees.
    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        update,  # pyright: ignore[reportArgumentType]
    )


def fit(dataset: nist.Dataset, model: Model, report: Callable[[Array, Array], None]) -> Fit:
    """Fits a model from all starts of a data set at once.

    The nonlinear parameters are `start * exp(theta)`. NIST's parameters span ten decades,
    and none changes its sign between start and solution, so one unit of `theta` means the
    same for all of them.

    Args:
        dataset: the data, and the starts of the nonlinear parameters.
        model: what to fit.
        report: called in every iteration with its number and the objectives, `(s,)`.

    Returns:
        The fit.
    """
    x, y = jnp.asarray(dataset.x), jnp.asarray(dataset.y)
    starts = jnp.asarray(model.nonlinear_of(dataset.starts))
    # Every search begins with the full step, the best one near the solution.
    line_search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=30,
        decrease_factor=0.5,
        increase_factor=math.inf,
        atol=OBJECTIVE_NOISE,
    )
    optimizer = optax.chain(newton(), line_search)

    def project(theta: Array, start: Array) -> tuple[Array, Array, Array]:
        """Nonlinear parameters, the best linear ones, and the residual."""
        nonlinear = start * jnp.exp(theta)
        columns = model.matrix(x, nonlinear)
        target = y - model.fixed(x, *nonlinear)
        # The default cutoff, some eps, keeps every column: the nearly parallel ones of
        # the Lanczos sets and the powers of the rational models have full rank.
        linear = jaxpinv.pinv(columns) @ target
        return nonlinear, linear, target - columns @ linear

    def objective(theta: Array, start: Array) -> Array:
        """Residual relative to the data, the sine of the angle between data and model.

        Derivatives of its square would fade with the residual, 1e-13 in Lanczos1.
        """
        *_, residual = project(theta, start)
        return jnp.linalg.norm(residual) / jnp.linalg.norm(y)

    def advance(search: Search, start: Array) -> Search:
        """One iteration from one start, or none if it has converged."""

        def loss(theta: Array) -> Array:
            return objective(theta, start)

        value, gradient = jax.value_and_grad(loss)(search.theta)
        step, state = optimizer.update(
            gradient,
            search.optimizer,
            search.theta,
            value=value,
            grad=gradient,
            value_fn=loss,
        )
        moved = Search(
            theta=jnp.asarray(optax.apply_updates(search.theta, step)),
            optimizer=state,
            iterations=search.iterations + 1,
            gradient=jnp.linalg.norm(gradient),
            step=jnp.linalg.norm(jnp.asarray(step)),
            loss=value,
        )
        going = is_going(search)
        return jax.tree.map(lambda new, old: jnp.where(going, new, old), moved, search)

    def is_going(search: Search) -> Array:
        # A comparison with NaN is false: a start that fails stops.
        unfinished = (search.gradient > GRADIENT_LIMIT) & (search.step > STEP_LIMIT)
        return unfinished & (search.iterations < MAX_ITERATIONS)

    def begin(start: Array) -> Search:
        theta, far = jnp.zeros_like(start), jnp.full((), jnp.inf)
        count = jnp.zeros((), jnp.int32)
        return Search(theta, optimizer.init(theta), count, far, far, far)

    @jax.jit
    def solve(starts: Array) -> tuple[Search, tuple, tuple]:
        def body(search: Search) -> Search:
            search = jax.vmap(advance)(search, starts)
            jax.debug.callback(report, search.iterations.max(), search.loss)
            return search

        first = jax.vmap(begin)(starts)
        last = jax.lax.while_loop(lambda search: is_going(search).any(), body, first)
        projection = jax.vmap(project)
        return last, projection(first.theta, starts), projection(last.theta, starts)

    begun = time.perf_counter()
    compiled = solve.lower(starts).compile()
    compiled_at = time.perf_counter()
    last, before, after = jax.device_get(compiled(starts))
    jax.effects_barrier()
    finished = time.perf_counter()
    *found, residuals = after
    parameters = [
        model.in_order_of(dataset.certified, row) for row in model.parameters(*found)
    ]
    return Fit(
        parameters=np.array(parameters),
        rss=np.sum(residuals**2, axis=-1),
        iterations=last.iterations,
        found=(found[0], found[1]),
        initial=(before[0], before[1]),
        seconds=finished - compiled_at,
        compile_seconds=compiled_at - begun,
    )
