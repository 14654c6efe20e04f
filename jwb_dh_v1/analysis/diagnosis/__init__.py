"""What went wrong with a system, told from its scores alone: statistics of clips, and explicit rules with bounds.

Example:
    >>> from jwb_dh_v1 import Result
    >>> for finding in diagnose(Result.load("runs/mine")).findings:  # doctest: +SKIP
    ...     print(finding)

"""

from jwb_dh_v1.analysis.diagnosis.clip_statistics import Measured as Measured
from jwb_dh_v1.analysis.diagnosis.diagnose import Diagnosis as Diagnosis
from jwb_dh_v1.analysis.diagnosis.diagnose import Finding as Finding
from jwb_dh_v1.analysis.diagnosis.diagnose import diagnose as diagnose
from jwb_dh_v1.analysis.diagnosis.failure_rules import RULES as RULES
from jwb_dh_v1.analysis.diagnosis.failure_rules import Rule as Rule
