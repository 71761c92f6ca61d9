r"""Learns one damping for each group of features by Newton's method.

Ridge regression minimizes `|a x - y|^2 + |D x|^2` with a diagonal `D`. Usually all features
share one damping, found on a grid, because a grid for several takes too many points. Here
features of one group share one, the intercept has none, and the dampings minimize the error
of leaving one out. With the damped inverse `P = (a^T a + D^2)^-1 a^T` and the leverages
`h_i`, the diagonal of `a P`, it has the closed form

    mean of ((y - a P y)_i / (1 - h_i))^2.

`P` is `jaxpinv.pinv(a, damp=1, damp_scale=d)`, where `d` is zero for the intercept. Its
derivatives in `d` are exact, so Newton's method in the logarithms of the dampings takes a
few steps, with one factorization each.

The data is that of 442 diabetes patients, which comes with scikit-learn, with squares and
products of the ten features: four of the body, six of the blood serum, 64 in all. It is
compared with `RidgeCV`, which finds one damping, and with a grid for four dampings that
takes a `RidgeCV` for each set of ratios. Then both predict patients that they have not
seen, in 13 folds.

    python -m examples.learned_ridge

prints errors, times and numbers of factorizations, draws them, and exits with status 0 if
all checks pass. It computes in double precision, as scikit-learn does.

Source:
    B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle regression", Ann.
    Statist. 32 (2004) 407-499, for the data and its 64 features; D. M. Allen, "The
    relationship between variable selection and data augmentation and a method for
    prediction", Technometrics 16 (1974) 125-127, for the closed form.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from examples import _command
from examples.learned_ridge import grid, newton, ridge
from examples.learned_ridge.figure import draw

#: The dampings to begin with, all alike.
START = 10.0

#: How much lower the errors have to be. Measured, learned over one damping: 0.974 of the
#: error of leaving one out and 0.979 for unseen patients.
REQUIRED, REQUIRED_UNSEEN = 0.98, 0.99

#: What `--quick` sets.
QUICK = {"folds": 2, "ratios": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if everything is as claimed, else 1.
    """
    options = _command.parsed(_parser(), QUICK, arguments)
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()

    data, folds = ridge.diabetes(), options.folds
    fold = np.random.default_rng(0).permutation(len(data.y)) % folds
    # The first problem has all rows, each of the others lacks those of a fold.
    present = np.arange(-1, folds)[:, None] != fold
    a, y = (jnp.asarray(present[:, :, None] * data.a), jnp.asarray(present * data.y))
    ratios = grid.ratio_grid(options.ratios)
    start = np.full((len(a), len(ridge.GROUPS)), np.log(START))

    def expand(at: NDArray) -> newton.Expansion:
        found = ridge.expansions(jnp.asarray(at), a, y, jnp.asarray(data.groups))
        return newton.Expansion(at, *jax.device_get(found))

    seconds: dict[str, float] = {}
    with tqdm(total=len(ratios), unit="factorization", leave=False) as bar:
        stage = partial(_stage, bar, seconds)
        with stage("compiling"):
            expand(start)
        with stage("Newton's method"):
            learned = newton.learn(expand, start)
        with stage("one damping"):
            single = grid.search(data, np.ones((1, len(ridge.GROUPS))))
        with stage("a grid for four dampings"):
            four = grid.search(data, ratios, bar.update)
        with stage("one damping, folds"):
            unseen = _unseen(data, fold, learned.end.coefficients[1:])
        with stage("fitting without each row"):
            dampings = np.exp(learned.end.log_dampings[0])
            refitted = grid.refitted_error(data, dampings)
        with stage("drawing"):
            path = options.output / "learned_ridge.png"
            draw(path, learned, single, four, unseen)

    error = learned.end.error[0]
    each = seconds["Newton's method"] / len(a)
    rows = (
        ("one damping, RidgeCV", single.errors, single.dampings, seconds["one damping"]),
        (
            "four, on a grid",
            four.errors,
            four.dampings,
            seconds["a grid for four dampings"],
        ),
        ("four, learned", learned.errors[: learned.factorizations[0], 0], dampings, each),
    )
    for name, squares, values, taken in rows:
        print(
            f"{name + ':':<22}error {np.sqrt(squares[-1]):.3f}, {len(squares):3d} "
            f"factorizations in {1e3 * taken:4.0f} ms of CPU; dampings {_row(values)}"
        )
    compiling = seconds["compiling"]
    print(f"compilation {compiling:.1f} s of CPU; groups: {', '.join(ridge.GROUPS)}")
    ours, theirs = np.sqrt(unseen.mean(axis=1))
    print(
        f"unseen patients, {folds} folds: error {theirs:.3f} with one damping, {ours:.3f} "
        f"with those learned, lower in {np.sum(unseen[0] < unseen[1])} folds"
    )
    checks = {
        "the closed form agrees with fitting without each row": (
            abs(refitted / error - 1) < 1e-9
        ),
        "the gradient is zero wherever Newton's method ends": np.all(
            learned.end.steepness() < newton.FLAT
        ),
        f"the error is {REQUIRED:.0%} of that with one damping": (
            np.sqrt(error / single.errors[-1]) < REQUIRED
        ),
        "no point of the grid for four dampings is better": error <= four.errors[-1],
        f"for unseen patients it is {REQUIRED_UNSEEN:.0%}": ours / theirs < REQUIRED_UNSEEN,
    }
    return _command.verdict(checks, began, path)


def _unseen(data: ridge.Data, fold: NDArray, coefficients: NDArray) -> NDArray:
    """Mean squared errors in each fold of what was learned, and of `RidgeCV`, `(2, k)`."""
    errors = []
    for number, ours in enumerate(coefficients):
        is_out = fold == number
        rest = ridge.Data(data.a[~is_out], data.y[~is_out], data.groups)
        theirs = grid.search(rest, np.ones((1, len(ridge.GROUPS))))
        a, y = data.a[is_out], data.y[is_out]
        guesses = (a @ ours, theirs.predicted(a[:, 1:]))
        errors.append([np.mean((guess - y) ** 2) for guess in guesses])
    return np.array(errors).T


@contextmanager
def _stage(bar: tqdm, seconds: dict[str, float], name: str) -> Iterator[None]:
    """Names on the bar what is computed, and notes the CPU seconds that it takes."""
    bar.set_description(name)
    began = time.process_time()
    yield
    seconds[name] = time.process_time() - began


def _row(values: NDArray) -> str:
    """Dampings in one line."""
    return " ".join(f"{value:.3g}" for value in values)


def _parser() -> argparse.ArgumentParser:
    parser = _command.parser(__package__, __doc__, QUICK)
    parser.add_argument("--folds", type=int, default=13, help="of unseen patients")
    parser.add_argument(
        "--ratios", type=int, default=9, help="ratios of two dampings on the grid"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
