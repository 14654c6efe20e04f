"""Which of two readings an audio language model prefers: questions in both orders, a log of paid answers, win rates.

Example:
    >>> from jwb_dh_v1.judge.backends import backend
    >>> items = Items("mine/", "theirs/", "jwb-dh-v1")  # doctest: +SKIP
    >>> outcome = judge(items, backend("gemini"), Log("runs/judge/log.jsonl"))  # doctest: +SKIP
    >>> win_rate(outcome.judgements).rate  # doctest: +SKIP

`judge.backends` are the models that can be asked, `judge.people` the ratings that judges are held to.

"""

from jwb_dh_v1.judge.items import Items as Items
from jwb_dh_v1.judge.log import Log as Log
from jwb_dh_v1.judge.rubric import Rubric as Rubric
from jwb_dh_v1.judge.run import dry_run as dry_run
from jwb_dh_v1.judge.run import judge as judge
from jwb_dh_v1.judge.statistics import Judgement as Judgement
from jwb_dh_v1.judge.statistics import WinRate as WinRate
from jwb_dh_v1.judge.statistics import bradley_terry as bradley_terry
from jwb_dh_v1.judge.statistics import win_rate as win_rate
