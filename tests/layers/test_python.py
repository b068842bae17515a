"""Python."""

import pytest

from ristretto_cli.errors import RistrettoError

NET = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }
    layer {
      name: "own" type: "Python" bottom: "x" top: "y"
      python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" }
    }
"""


def test_it_is_refused_with_its_module_and_layer(workshop):
    with pytest.raises(RistrettoError) as refused:
        workshop.load(NET)
    assert str(refused.value) == (
        'net.prototxt:3: layer "own" (Python): Python layers cannot be run: module "rpn.proposal_layer", layer '
        '"ProposalLayer". Leave it out of the net, or put layers of Caffe in its place.'
    )


def test_without_bottoms_or_settings_it_is_refused_too(bench):
    assert 'module "", layer ""' in bench.refusal("Python", "", [], tops=0)
