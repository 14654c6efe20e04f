"""The dataset: its schema, loading, pairing with generated clips, prompts for a model, training rows, and checks.

Example:
    >>> rows = load_dataset("jwb-dh-v1", split="evaluation", streaming=True)  # doctest: +SKIP
    >>> for sample in pair("generated/", "jwb-dh-v1"):  # doctest: +SKIP
    ...     print(sample.id, sample.generated.size, sample.transcript)

`dataset.build` makes datasets.

"""

from jwb_dh_v1.dataset.check import check as check
from jwb_dh_v1.dataset.generate import generate as generate
from jwb_dh_v1.dataset.load import load_dataset as load_dataset
from jwb_dh_v1.dataset.pairs import pair as pair
from jwb_dh_v1.dataset.prompts import write_prompts as write_prompts
from jwb_dh_v1.dataset.training import collate as collate
from jwb_dh_v1.dataset.training import decode as decode
