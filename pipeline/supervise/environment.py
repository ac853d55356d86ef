"""What a launcher may see of the environment.

To start ranks on other machines, DeepSpeed writes every variable whose name begins with MLFLOW, PYTHON, NCCL, MV2 or UCX, and every line
of a `.deepspeed_env`, into a remote command line: all users there see it, the log holds it, and a shell reads it, which runs $(...).
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.samples import DataError

EXPORTED = ("MLFLOW", "PYTHON", "NCCL", "MV2", "UCX")
"""Beginnings of the names that DeepSpeed 0.19.8 passes on (its own list, and the accelerator's)."""
SECRET = re.compile(r"TOKEN|PASSW|SECRET|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|AUTH", re.IGNORECASE)
ACTIVE = re.compile(r"[\s$`\"'\\;&|<>(){}*?!#~]|\[|\]")
"""What a shell would not leave as it stands. (DeepSpeed's own quotes keep blanks, and stop nothing else.)"""


def for_launcher(env: Mapping[str, str], several_machines: bool) -> tuple[dict[str, str], list[str]]:
    """The launcher's environment, and the names that were left out of it.

    A launcher for this machine passes everything on as an environment: nothing is left out. For other machines all MLFLOW variables are.

    Raises:
        DataError: a variable that would be passed on says something to a shell, or `.deepspeed_env` holds a secret.
    """
    env = dict(env)
    if not several_machines:
        return env, []
    out = [name for name in env if name.startswith("MLFLOW") or (name.startswith(EXPORTED) and SECRET.search(name))]
    for name in out:
        del env[name]
    for name, value in env.items():
        if name.startswith(EXPORTED) and ACTIVE.search(value):
            raise DataError(
                f"environment variable {name}: found a value with blanks or characters that mean something to a shell, and DeepSpeed puts "
                "it into the command lines of other machines; nothing was started. Unset it, or give it a plain value"
            )
    for folder in (Path(os.path.expanduser("~")), Path(".")):
        _check_file(folder / env.get("DS_ENV_FILE", ".deepspeed_env"))
    return env, sorted(out)


def check_words(words: Sequence[str]) -> None:
    """Refuse what a shell on another machine would not leave as it stands.

    Raises:
        DataError: names the word.
    """
    for word in words:
        if ACTIVE.search(word):
            raise DataError(
                f"found {word!r} among the words for the trainer: a shell on the other machines would read it anew, and change or run it; "
                "nothing was started. Use names without blanks and special characters, or start a launcher on every machine (--no_ssh)"
            )


def _check_file(path: Path) -> None:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        name, sign, _ = line.partition("=")
        if not sign or SECRET.search(name) or name.strip().startswith("MLFLOW"):
            what = "a line without =" if not sign else f"{name.strip()}, which looks like a secret,"
            raise DataError(
                f"{path}, line {number}: found {what} and DeepSpeed puts this file's lines into command lines that all users of the other "
                "machines can read; nothing was started. Take it out (MLflow reads ~/.mlflow/credentials, mode 600, on the first machine)"
            )
