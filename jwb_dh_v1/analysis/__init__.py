"""What results say: which may be compared, differences with their tests, orders of systems, what went wrong, exports.

Example:
    >>> from jwb_dh_v1 import Result
    >>> runs = [Result.load("runs/mine"), Result.load("runs/theirs")]  # doctest: +SKIP
    >>> for cell in compare(runs).cells:  # doctest: +SKIP
    ...     print(cell.metric, cell.region, cell.difference.value, cell.holm, cell.verdict)

"""

from jwb_dh_v1.analysis.ablate import ablate as ablate
from jwb_dh_v1.analysis.comparable import comparable as comparable
from jwb_dh_v1.analysis.comparable import differing as differing
from jwb_dh_v1.analysis.compare import compare as compare
from jwb_dh_v1.analysis.export import to_csv as to_csv
from jwb_dh_v1.analysis.export import to_latex as to_latex
from jwb_dh_v1.analysis.export import to_markdown as to_markdown
from jwb_dh_v1.analysis.find_results import read_result as read_result
from jwb_dh_v1.analysis.leaderboard import leaderboard as leaderboard
from jwb_dh_v1.analysis.submission import check_submission as check_submission
