"""Problems for tests of properties: few shapes, and any spectrum, scale and cutoff.

Every new shape is compiled, but new values cost little. So a problem is one of a few
configurations, and a recipe of small numbers from which NumPy makes the arrays. A failing
test prints these two.

The settings profiles "default" and "large" of hypothesis are registered here, and the
variable JAXPINV_PROPERTIES chooses one:

    JAXPINV_PROPERTIES=large python -m pytest tests/test_pinv_properties.py

tries every property in all configurations, 10000 times or JAXPINV_EXAMPLES times.
"""

import os
from functools import partial
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, example, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from tests import matrices

EXAMPLES = 20
_common = partial(
    settings.register_profile,
    deadline=None,
    database=None,
    # Explaining a failure takes longer than finding it.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_common("default", max_examples=EXAMPLES, derandomize=True)
_common(
    "large",
    max_examples=int(os.environ.get("JAXPINV_EXAMPLES", "10000")),
    # Otherwise hypothesis repeats the same examples if it detects a CI machine.
    derandomize=False,
)
PROFILE = os.environ.get("JAXPINV_PROPERTIES", "default")
settings.load_profile(PROFILE)
IS_LARGE = PROFILE == "large"


class Configuration(NamedTuple):
    """What a program is compiled for.

    Attributes:
        shape: the shape of the matrices.
        dtype: float32, float64, complex64 or complex128.
        hermitian: whether the matrices are Hermitian.
        given: whether tolerances are arguments; if not, the default is used.
    """

    shape: tuple
    dtype: DTypeLike = np.float64
    hermitian: bool = False
    given: bool = True

    @property
    def real(self) -> np.dtype:
        """The real dtype of the same precision."""
        return np.finfo(self.dtype).dtype

    @property
    def eps(self) -> float:
        """The `eps` of the dtype."""
        return float(np.finfo(self.dtype).eps)


def _configurations() -> list[Configuration]:
    """A few shapes that reach all factorizations, or many shapes in every dtype."""
    if not IS_LARGE:
        return [
            Configuration((33, 3, 2), np.float64),  # by Gram-Schmidt
            Configuration((9, 9), np.complex128, given=False),  # by LU
            Configuration((12, 9), np.complex64),  # by Cholesky
            Configuration((9, 12), np.complex64),
            Configuration((4, 4), np.float64, hermitian=True),
        ]
    general = [(0, 3), (2, 0, 0), (1, 1), (1, 4), (4, 1), (3, 3), (5, 3), (3, 5)]
    general += [(33, 1, 1), (32, 3, 2), (40, 2, 3), (33, 6, 6), (2, 4, 3), (2, 2, 2, 2)]
    general += [(9, 9), (12, 9), (9, 12), (2, 13, 13), (3, 16, 13), (30, 9), (1, 9, 9)]
    square = [(n, n) for n in (1, 2, 3, 4, 5, 6, 9)] + [(33, 3, 3)]
    found = []
    for dtype in (np.float32, np.float64, np.complex64, np.complex128):
        found += [Configuration(shape, dtype) for shape in general]
        found += [Configuration(shape, dtype, hermitian=True) for shape in square]
        for shape in ((5, 3), (33, 3, 2), (9, 9), (12, 9)):
            found.append(Configuration(shape, dtype, given=False))
    return found


CONFIGURATIONS = _configurations()

KINDS = (
    "full",
    "ill_conditioned",
    "deficient",
    "repeated",
    "repeated_and_deficient",
    "clustered",
    "graded",
    "zero",
    "rank_one",
    "integer",
    "integer_deficient",
    "permutation",
    "triangular",
    "minus_zero",
)
CUTOFFS = ("zero", "default", "between", "on", "rtol", "both", "everything", "far", "huge")


class Recipe(NamedTuple):
    """The small numbers that a problem is made of.

    Attributes:
        kinds: the kinds of the matrices of a batch, in turn.
        seed: the seed of their random elements.
        digits: decimal digits of the condition number of ill-conditioned matrices.
        exponent: the exponent of the power of two that scales the matrices.
        cutoffs: the kinds of cutoffs of the matrices of a batch, in turn.
        position: where in the spectrum the cutoff is.
    """

    kinds: tuple[str, ...]
    seed: int
    digits: int
    exponent: int
    cutoffs: tuple[str, ...]
    position: int


class Problem(NamedTuple):
    """Arrays of one configuration."""

    configuration: Configuration
    recipe: Recipe
    a: np.ndarray
    b: np.ndarray
    ct: np.ndarray
    e: np.ndarray
    rtol: np.ndarray
    atol: np.ndarray

    def __repr__(self) -> str:
        """The call that makes the problem again, instead of many numbers."""
        return f"problem({self.configuration}, {self.recipe})"


def recipes(exponents: st.SearchStrategy[int]) -> st.SearchStrategy[Recipe]:
    """All recipes, with scales drawn from `exponents`."""

    def some(names):
        return st.lists(st.sampled_from(names), min_size=1, max_size=3).map(tuple)

    return st.builds(
        Recipe,
        some(KINDS),
        st.integers(0, 2**16),
        st.integers(0, 15),
        exponents,
        some(CUTOFFS),
        st.integers(0, 5),
    )


@st.composite
def problems(draw, where=lambda configuration: True, scaled: bool = True) -> Problem:
    """Problems in the configurations that `where` accepts.

    The scales are limited so that neither the pseudo-inverse nor its square, which is the
    size of the gradient, overflows or loses digits.
    """
    configuration = draw(st.sampled_from([c for c in CONFIGURATIONS if where(c)]))
    limit = 24 if configuration.real == np.float32 else 320
    exponents = st.integers(-limit, limit) if scaled else st.just(0)
    return problem(configuration, draw(recipes(exponents)))


def in_every_configuration(*others):
    """Decorator: tries two problems of each configuration before what hypothesis draws.

    In one of them nothing is truncated, in the other all singular values except one.
    """

    def decorate(test):
        for cutoff in ("zero", "between"):
            recipe = Recipe(("full",), 1, 0, 0, (cutoff,), 0)
            for configuration in CONFIGURATIONS:
                if np.prod(configuration.shape):
                    test = example(problem(configuration, recipe), *others)(test)
        return test

    return decorate


def problem(configuration: Configuration, recipe: Recipe) -> Problem:
    """The arrays of a recipe, in a configuration."""
    shape, dtype, real = configuration.shape, configuration.dtype, configuration.real
    *batch, m, n = shape
    rng = np.random.default_rng(recipe.seed)
    count = int(np.prod(batch))
    rows = [
        _matrix(rng, configuration, recipe, recipe.kinds[i % len(recipe.kinds)])
        for i in range(count)
    ]
    a = np.reshape(np.array(rows), shape).astype(dtype) if rows else np.zeros(shape, dtype)
    scale = real.type(2.0) ** recipe.exponent
    a = (a * scale).astype(dtype)
    rtol, atol = _tolerances(configuration, recipe, a)
    b, ct, e = (
        matrices.gaussian(rng, s, dtype) for s in ((*batch, m, 2), (*batch, n, m), shape)
    )
    e = (e + np.conj(np.swapaxes(e, -1, -2))) / 2 if configuration.hermitian else e
    return Problem(configuration, recipe, a, b, ct, (e * scale).astype(dtype), rtol, atol)


def _matrix(
    rng: np.random.Generator, configuration: Configuration, recipe: Recipe, kind: str
) -> np.ndarray:
    """One matrix in double precision, with elements of size about 1."""
    *_, m, n = configuration.shape
    k = min(m, n)
    dtype = np.result_type(configuration.dtype, np.float64)
    digits = recipe.digits * (0.4 if configuration.real == np.float32 else 0.8)
    spectra = {
        "full": rng.uniform(0.5, 2, k),
        "ill_conditioned": np.logspace(0, -digits, k),
        "deficient": np.where(np.arange(k) < max(k - 1, 1), np.linspace(2, 1, k), 0),
        "repeated": np.full(k, 1.5),
        "repeated_and_deficient": np.where(np.arange(k) < (k + 1) // 2, 2.0, 0.0),
        "clustered": 1 + 1e-9 * rng.standard_normal(k),
        "zero": np.zeros(k),
        "rank_one": np.where(np.arange(k) < 1, 1.0, 0.0),
    }
    if kind in spectra:
        if configuration.hermitian:
            signs = np.where(rng.random(k) < 0.5, -1, 1)
            return matrices.hermitian_matrix(rng, spectra[kind] * signs, dtype)
        return matrices.matrix(rng, (m, n), spectra[kind], dtype) if k else np.zeros((m, n))
    a = rng.integers(-3, 4, (m, n)).astype(dtype)
    if dtype.kind == "c":
        a = a + 1j * rng.integers(-3, 4, (m, n))
    if kind == "graded":
        a = matrices.gaussian(rng, (m, n), dtype)
        a = a * np.logspace(0, -digits, max(m, 1))[:, None]
    elif kind == "integer_deficient" and k:
        a[..., -1] = a[..., 0]
    elif kind == "permutation":
        a = np.eye(m, n, dtype=dtype)[rng.permutation(m)]
    elif kind == "triangular":
        a = np.triu(np.ones((m, n), dtype))
    elif kind == "minus_zero":
        a = np.where(a == 0, -0.0, np.where(rng.random((m, n)) < 0.5, -0.0, a))
    if configuration.hermitian:
        a = np.tril(a) + np.conj(np.tril(a, -1)).T
        np.fill_diagonal(a, np.diag(a).real)
    return a


def _tolerances(
    configuration: Configuration, recipe: Recipe, a: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Relative and absolute tolerances of batch shape."""
    (*batch, m, n), real = configuration.shape, configuration.real
    default = max(m, n) * configuration.eps
    rtol, atol = np.full(batch, default), np.zeros(batch)
    if not configuration.given:
        return rtol.astype(real), atol.astype(real)
    values = singular_values(a)
    for i, at in enumerate(np.ndindex(*batch)):
        kind = recipe.cutoffs[i % len(recipe.cutoffs)]
        s = np.append(values[at], 0.0)
        largest = max(s[0], float(np.finfo(real).tiny))
        k = recipe.position % len(s)
        low = s[min(k + 1, len(s) - 1)]
        middle = np.sqrt(s[k]) * np.sqrt(low) if low else s[k] / 2
        rtol[at], atol[at] = {
            "zero": (0, 0),
            "default": (default, 0),
            "between": (0, middle),
            "on": (0, s[k]),
            "rtol": (middle / largest, 0),
            "both": (s[k] / largest * 0.9, middle),
            "everything": (1 + recipe.position, 0),
            "far": (np.inf, 0),
            "huge": (0, np.finfo(real).max),
        }[kind]
    return rtol.astype(real), atol.astype(real)


def singular_values(a: np.ndarray) -> np.ndarray:
    """Singular values by NumPy in double precision, `(..., min(m, n))`."""
    if not a.size:
        return np.zeros((*a.shape[:-2], min(a.shape[-2:])))
    return np.linalg.svd(a.astype(np.result_type(a, np.float64)), compute_uv=False)
