"""From samples to a result: the plan, shards that resume, executors, and what a result holds.

Example:
    >>> from jwb_dh_v1 import Clip, Sample
    >>> samples = [Sample("a", Clip("generated/a.mp4"), Clip("real/a.mp4"))]
    >>> result = score(samples, ["ssim"], ["face"], out="runs/mine")  # doctest: +SKIP
    >>> result["ssim", "face"].ci95  # doctest: +SKIP

"""

from jwb_dh_v1.scoring.executors import Execution as Execution
from jwb_dh_v1.scoring.plan import Plan as Plan
from jwb_dh_v1.scoring.plan import make_plan as make_plan
from jwb_dh_v1.scoring.result import Result as Result
from jwb_dh_v1.scoring.result import Score as Score
from jwb_dh_v1.scoring.run import merge as merge
from jwb_dh_v1.scoring.run import prepare as prepare
from jwb_dh_v1.scoring.run import score as score
