"""What dampings cost by grid search: `RidgeCV` of scikit-learn, once and for many ratios.

`RidgeCV` finds one damping for all features from one factorization, with the error of
leaving one out at every point of its grid. Columns that are divided by factors have
dampings in the ratios of these factors: a grid for several dampings takes one `RidgeCV` for
each set of ratios.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from examples.learned_ridge.newton import HIGHEST, LOWEST
from examples.learned_ridge.ridge import GROUPS, Data

#: Points in each decade of a damping.
PER_DECADE = 6


class Searched(NamedTuple):
    """What a grid search found.

    Attributes:
        dampings: of the groups, `(g,)`.
        errors: the least so far, mean squared, after each factorization, `(t,)`.
        model: the fit with these dampings, of features divided by `factors`.
        factors: of the columns, `(n,)`.
    """

    dampings: NDArray
    errors: NDArray
    model: RidgeCV
    factors: NDArray

    def predicted(self, features: NDArray) -> NDArray:
        """Predictions for rows of features, `(m, n)`."""
        return self.model.predict(features / self.factors)


def search(
    data: Data, ratios: NDArray, report: Callable[[], object] = lambda: None
) -> Searched:
    """Grid search by one `RidgeCV` for each row of `ratios`, `(t, g)`."""
    found = []
    for ratio in ratios:
        factors = ratio[data.groups]
        low, high = np.log10(LOWEST / ratio.min()), np.log10(HIGHEST / ratio.max())
        points = 1 + round(PER_DECADE * (high - low))
        alphas = np.logspace(low, high, points) ** 2
        found.append(RidgeCV(alphas).fit(data.a[:, 1:] / factors, data.y))
        report()
    errors = np.array([-model.best_score_ for model in found])
    best = int(np.argmin(errors))
    dampings = ratios[best] * np.sqrt(found[best].alpha_)
    so_far = np.minimum.accumulate(errors)
    return Searched(dampings, so_far, found[best], ratios[best][data.groups])


def ratio_grid(count: int) -> NDArray:
    """Ratios of the other dampings to the first, from 1/100 to 100, `(count**(g-1), g)`."""
    each = np.logspace(-2, 2, count)
    others = itertools.product(each, repeat=len(GROUPS) - 1)
    return np.array([(1.0, *ratio) for ratio in others])


def refitted_error(data: Data, dampings: NDArray) -> float:
    """Mean squared error of leaving out each row in turn and fitting all others again."""
    features = data.a[:, 1:] / dampings[data.groups]
    squares = []
    for row in range(len(data.y)):
        others = np.arange(len(data.y)) != row
        model = Ridge(alpha=1.0).fit(features[others], data.y[others])
        predicted = model.predict(features[[row]])
        squares.append(float(predicted[0] - data.y[row]) ** 2)
    return float(np.mean(squares))
