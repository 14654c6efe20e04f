"""What people say: the page on which they rate, the study behind it, their ratings, and the judge against them.

Example:
    >>> from jwb_dh_v1.judge.people import read_ratings, validate
    >>> report = validate(judgements, read_ratings("ratings.csv"))  # doctest: +SKIP
    >>> report.kappa  # doctest: +SKIP

"""

from jwb_dh_v1.judge.people.page import launch as launch
from jwb_dh_v1.judge.people.page import rating_page as rating_page
from jwb_dh_v1.judge.people.ratings import Rating as Rating
from jwb_dh_v1.judge.people.ratings import read_ratings as read_ratings
from jwb_dh_v1.judge.people.ratings import write_ratings as write_ratings
from jwb_dh_v1.judge.people.study import RatingItem as RatingItem
from jwb_dh_v1.judge.people.validation import validate as validate
