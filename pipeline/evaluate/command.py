"""What the commands of this package have in common."""

import argparse
import sys
from collections.abc import Callable

from data_prep.samples import DataError


def exit_status(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; bad input (`DataError`) is said on standard error, with status 2."""
    try:
        return run(args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
