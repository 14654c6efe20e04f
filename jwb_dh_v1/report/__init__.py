"""What people look at: the HTML report with its drawings, pictures and players; tables for the terminal.

Example:
    >>> from pathlib import Path
    >>> from jwb_dh_v1 import Result
    >>> from jwb_dh_v1.dataset import pair
    >>> samples = pair("generated/", "jwb-dh-v1")  # for the clips; None leaves pictures out  # doctest: +SKIP
    >>> write_report(Result.load("runs/mine"), samples, Path("runs/mine/report.html"))  # doctest: +SKIP
    >>> print_table(Result.load("runs/mine"))  # doctest: +SKIP

"""

from jwb_dh_v1.report.charts import radar_of as radar_of
from jwb_dh_v1.report.charts import write_plots as write_plots
from jwb_dh_v1.report.report import write_comparison as write_comparison
from jwb_dh_v1.report.report import write_report as write_report
from jwb_dh_v1.report.tables import print_comparison as print_comparison
from jwb_dh_v1.report.tables import print_table as print_table
