"""What the text of a program says."""

import re


def svd_calls(text: str | None) -> list[str]:
    """The lines that call one of LAPACK's singular value decompositions."""
    lines = str(text).splitlines()
    return [line for line in lines if re.search(r"lapack_[sdcz]ges(dd|vd)_ffi", line)]
