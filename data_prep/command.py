"""How every command ends that a person starts: bad input is said on standard error, with status 2.

(The trainer's ranks end in their own way: they say who they are, and agree before they leave.)
"""

import sys
from collections.abc import Callable

from pydantic import ValidationError

from data_prep.samples import DataError


def exit_status(work: Callable[..., int], *args: object) -> int:
    """Run `work(*args)`, which returns an exit status; what is wrong with the input is said, a line a fault."""
    try:
        return work(*args)
    except DataError as error:
        faults = [str(error)]
    except PermissionError as error:
        if error.filename is None:  # not of a file: no fault of the data's, and a message without a name would help nobody
            raise
        faults = [
            f"{error.filename}: found no permission to use it ({error.strerror}); expected data that can be read and an output folder that "
            "can be written to. Change its owner or mode, or name another"
        ]
    except ValidationError as error:
        faults = [_in_words(fault) for fault in error.errors()]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 2


def _in_words(fault: dict) -> str:
    """One of pydantic's findings: the option, what was given, what is wrong with it; a rule between options names them itself."""
    names = [part for part in fault["loc"] if isinstance(part, str)]
    return f"--{names[-1].replace('_', '-')} {fault['input']}: {fault['msg']}" if names else fault["msg"]
