"""Certified regression coefficients of NIST, by `pinv(A) @ y`."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

import jaxpinv

DIRECTORY = Path(__file__).parent / "data" / "nist_strd" / "linear"
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.dat"))


def read(name):
    """Design matrix, response and certified coefficients of a data set."""
    text = (DIRECTORY / f"{name}.dat").read_text(encoding="ascii")
    certified = re.findall(r"^\s+B\d\d?\s+(\S+)\s+\S+\s*$", text, re.M)
    [(first, last)] = re.findall(r"^\s+Data\s+\(lines (\d+) to (\d+)\)", text, re.M)
    rows = [row.split() for row in text.splitlines()[int(first) - 1 : int(last)]]
    y, *x = np.array(rows, np.float64).T
    # One predictor: a polynomial in it, without a constant term in the sets NoInt.
    if len(x) == 1 and len(certified) > 1:
        a = np.vander(x[0], len(certified), increasing=True)
    else:
        a = np.column_stack([np.ones_like(y), *x][-len(certified) :])
    return a, y, np.array(certified, np.float64)


def digits(pinv, name):
    """The number of correct digits in the least accurate coefficient."""
    a, y, certified = read(name)
    error = np.max(np.abs(np.asarray(pinv(a) @ y) / certified - 1))
    return -np.log10(max(error, np.finfo(np.float64).eps))


def test_there_are_ten_sets():
    assert len(NAMES) == 10


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_have_the_digits_of_numpy_and_scipy(name):
    peers = [digits(np.linalg.pinv, name), digits(scipy.linalg.pinv, name)]
    # The two peers use different builds of LAPACK, whose rounding errors differ by half a
    # digit. So compare with the less accurate one, and allow twice its error.
    assert digits(jaxpinv.pinv, name) >= min(peers) - np.log10(2)


def test_the_default_cutoff_keeps_the_small_coefficient_of_pontius():
    assert digits(jaxpinv.pinv, "Pontius") >= 6
