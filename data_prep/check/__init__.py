"""What a job over some folders would set aside, and why: looked at before anyone pays for a cluster."""

from data_prep.check.report import as_json, exit_code, text
from data_prep.check.run import CheckSettings, Survey, check

__all__ = ["CheckSettings", "Survey", "as_json", "check", "exit_code", "text"]
