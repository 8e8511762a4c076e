from .case_run import CaseOutcome as CaseOutcome
from .case_run import run_case as run_case
from .case_verdict import Mismatch as Mismatch
