"""Numbers as tables, figures and sentences write them."""


def compact(count: float) -> str:
    """Return a count in three digits: 55.5k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{suffix}"
    return f"{count:.3g}"


def percent(share: float, *, digits: int = 2) -> str:
    """Return a share in percent, as a person writes it: 100 %, 29 %, 0.35 %; "-" if it is NaN.

    Two digits, and more where they stand before the point: the format `.2g` makes 1e+02 of 99.7.

    Args:
        share: A share: 1 is 100 %.
        digits: Significant digits.
    """
    value = 100 * share
    if value != value:  # NaN
        return "-"
    text = f"{value:.{digits}g}"
    return f"{value:.0f} %" if "e+" in text else f"{text} %"
