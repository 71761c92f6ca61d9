r"""Fits NIST's separable nonlinear regression sets by variable projection.

A model `y = Phi(b) c` is linear in the coefficients `c` once the nonlinear parameters `b`
are fixed, and the best coefficients are `pinv(Phi(b)) y`. Put back into the model they
leave a function of `b` alone, which Newton's method minimises: a chain of a step with the
exact Hessian and a line search of `optax`. Both derivatives flow through `jaxpinv.pinv`.
The coefficients need no starting values.

The Hessian is where the derivative of the pseudo-inverse counts. In the gradient its
share is zero, because the residual is orthogonal to the columns.

    python examples/variable_projection.py               every set
    python examples/variable_projection.py Gauss1 ENSO   some of them

prints what was found next to what NIST certifies, writes a picture of each fit, and exits
with status 0 if the required digits were reached from both of NIST's starts. NIST's sets
Chwirut2 and Nelson are left out: one has no linear parameter as it is written, the other
has two predictors and a logarithmic response.

Source:
    G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
    squares problems whose variables separate", SIAM J. Numer. Anal. 10 (1973) 413-432.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import nist
import numpy as np
import optax
from fit_figure import draw
from fit_table import HEADER, Fit, agreement, caption, table
from jax import Array
from separable_models import MODELS, Model
from tqdm import tqdm

import jaxpinv

#: A search that compares values alone ends with half of the sixteen digits of a double.
#: An exact gradient must do better. NIST's eleven digits are rounded, which leaves 10.3.
REQUIRED_DIGITS = 9.0

#: The objective is a sine and the parameters are logarithms, so both limits are relative.
#: They are tens and hundreds of roundings of double precision.
GRADIENT_LIMIT = 1e-14
STEP_LIMIT = 1e-13
MAX_ITERATIONS = 200

#: What rounding does to the objective; the line search does not count it as an increase.
OBJECTIVE_NOISE = 1e-15


class Search(NamedTuple):
    """State of the optimisation; every array has the axis of the starts in front."""

    theta: Array
    optimiser: optax.OptState
    iterations: Array
    gradient: Array
    step: Array
    loss: Array


def newton() -> optax.GradientTransformationExtraArgs:
    """Turns a gradient into a Newton step that goes downhill, for `optax.chain`.

    Eigenvalues of the Hessian enter by their absolute values, for it is indefinite far
    from the solution. Steps longer than one, a factor e in the parameters, are shortened:
    the quadratic model does not reach further. The absolute values and the cap together
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
        # Flat directions, to rounding, would give steps without end.
        curvatures = jnp.maximum(curvatures, 1e-12 * curvatures.max())
        step = -directions @ ((directions.T @ gradient) / curvatures)
        return step / jnp.maximum(1, jnp.linalg.norm(step)), state

    # The types of optax are those of trees in general.
    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        update,  # pyright: ignore[reportArgumentType]
    )


def fit(dataset: nist.Dataset, model: Model, report: Callable[[Array, Array], None]) -> Fit:
    """Fits a model from all starts of a data set at once.

    The nonlinear parameters are `start * exp(theta)`. NIST's parameters span ten decades,
    and none changes its sign between start and solution: so a unit of `theta` means the
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
    optimiser = optax.chain(newton(), line_search)

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
        """One iteration from one start, or none if it has arrived."""

        def loss(theta: Array) -> Array:
            return objective(theta, start)

        value, gradient = jax.value_and_grad(loss)(search.theta)
        step, state = optimiser.update(
            gradient,
            search.optimiser,
            search.theta,
            value=value,
            grad=gradient,
            value_fn=loss,
        )
        moved = Search(
            theta=jnp.asarray(optax.apply_updates(search.theta, step)),
            optimiser=state,
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
        return Search(theta, optimiser.init(theta), count, far, far, far)

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if every fit reached the required digits, else 1.
    """
    options = _parser().parse_args(arguments)
    # The digits that NIST certifies need double precision.
    jax.config.update("jax_enable_x64", True)
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    least: dict[str, float] = {}

    tqdm.write(HEADER)
    # With miniters=0 the bar moves within a set, with smoothing=0 it counts whole sets.
    settings = {"unit": "set", "miniters": 0, "smoothing": 0, "leave": False}
    with tqdm(options.names, **settings) as bar:
        for name in bar:

            def report(iteration: Array, losses: Array, name: str = name) -> None:
                reached = ", ".join(f"{loss:.3e}" for loss in losses)
                bar.set_postfix_str(f"iteration {iteration}: {reached}", refresh=False)
                bar.set_description(name, refresh=False)
                bar.update(0)

            bar.set_postfix_str("", refresh=False)
            bar.set_description(f"{name}, compiling")
            dataset, model = nist.read(name), MODELS[name]
            result = fit(dataset, model, report)
            agree = agreement(dataset, model, result)
            least |= {f"{name} start {i}": n for i, n in enumerate(agree.least, start=1)}
            tqdm.write("\n" + table(dataset, model, result, agree))

            bar.set_description(f"{name}, drawing")
            best = int(np.argmax(agree.least))
            draw(
                options.output / f"{name}.png",
                dataset,
                model,
                found=(result.found[0][best], result.found[1][best]),
                initial=result.initial,
                caption=caption(dataset, result, agree, best),
            )

    missed = {fit: n for fit, n in least.items() if not n >= options.digits}
    weakest = min(least, key=lambda fit: least[fit])
    print(
        f"\n{len(least) - len(missed)} of {len(least)} fits reach {options.digits:g} "
        f"digits, the weakest {least[weakest]:.1f} ({weakest}); "
        f"{time.perf_counter() - began:.0f} seconds, figures in {options.output}"
    )
    for fit_name, count in missed.items():
        print(f"missed: {fit_name} has {count:.1f} digits")
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Variable projection on NIST data.")
    parser.add_argument(
        "names",
        nargs="*",
        default=list(MODELS),
        metavar="SET",
        type=_set_name,
        help=f"data sets, by default all: {', '.join(MODELS)}",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("figures"), help="folder for the figures"
    )
    parser.add_argument(
        "--digits", type=float, default=REQUIRED_DIGITS, help="digits to reach"
    )
    return parser


def _set_name(text: str) -> str:
    if text not in MODELS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(MODELS)}, got {text}")
    return text


if __name__ == "__main__":
    sys.exit(main())
