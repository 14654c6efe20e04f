"""Statistics of clusters: arrays in, an `Estimate` (a number with an interval that covers what it says) out.

Example:
    >>> found = mean_estimate([0.91, 0.88, 0.93, 0.90], ["ann", "ben", "cy", "di"], bounds=(0, 1))
    >>> f"{found.value:.3f} [{found.low:.2f}, {found.high:.2f}]", found.method
    ('0.905 [0.84, 0.97]', "Student's t at 99% over 4 identities")

"""

from jwb_dh_v1.stats.agreement import kappa as kappa
from jwb_dh_v1.stats.calibration import calibrated as calibrated
from jwb_dh_v1.stats.estimate import Estimate as Estimate
from jwb_dh_v1.stats.means import mean_estimate as mean_estimate
from jwb_dh_v1.stats.paired import Difference as Difference
from jwb_dh_v1.stats.paired import paired as paired
from jwb_dh_v1.stats.rates import rate_estimate as rate_estimate
from jwb_dh_v1.stats.significance import holm as holm
from jwb_dh_v1.stats.significance import sign_flip_test as sign_flip_test
