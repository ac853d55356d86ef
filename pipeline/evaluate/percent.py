"""Shares as people read them, one form for all tables."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in percent, without the sign; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"
