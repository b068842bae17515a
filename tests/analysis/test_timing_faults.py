"""Data that a layer cannot follow is reported by `time` as by every other command."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.analysis.timing import time_net
from ristretto_cli.errors import RistrettoError

NET = """
    layer { name: "i" type: "DummyData" top: "i" dummy_data_param { shape { dim: 2 } data_filler { value: 7 } } }
    layer { name: "e" type: "Embed" bottom: "i" top: "e" embed_param { input_dim: 3 num_output: 2 bias_term: false } }
"""


def test_an_index_without_an_entry_is_no_bug_of_ours(workshop: Any) -> None:
    with pytest.raises(
        RistrettoError, match='layer "e": an index into 3 entries is negative, too large or not a number'
    ):
        time_net(workshop.load(NET), 1, rng=np.random.default_rng(0))
