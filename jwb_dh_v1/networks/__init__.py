"""Networks: the table of weights, the pool that loads each network once, and one file per network.

A network's file holds its declaration (`Network`), its preprocessing and its features, `clip -> array`. A new network
is one such file and one row in `weights_table.py`.

Example:
    >>> from jwb_dh_v1.media import Clip
    >>> from jwb_dh_v1.networks import mobilenet
    >>> pool = NetworkPool(resolve_all(["mobilenet-v2"]), "cpu")  # doctest: +SKIP
    >>> mobilenet.features(Clip("generated/a.mp4", models=pool)).shape  # doctest: +SKIP
    (120, 1280)

"""

from jwb_dh_v1.networks.network import Network as Network
from jwb_dh_v1.networks.pool import NetworkPool as NetworkPool
from jwb_dh_v1.networks.pool import models_of as models_of
from jwb_dh_v1.networks.recognizers import Recognizer as Recognizer
from jwb_dh_v1.networks.recognizers import recognizer as recognizer
from jwb_dh_v1.networks.weights import FILES as FILES
from jwb_dh_v1.networks.weights import fetch as fetch
from jwb_dh_v1.networks.weights import resolve as resolve
from jwb_dh_v1.networks.weights import resolve_all as resolve_all
