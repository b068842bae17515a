"""Python."""

import pytest

from ristretto_cli.errors import RistrettoError

NET = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }
    layer {
      name: "own" type: "Python" bottom: "x" top: "y"
      python_param { module: "rpn.anchor_target_layer" layer: "AnchorTargetLayer" param_str: "'feat_stride': 16" }
    }
"""
KNOWN = NET.replace("anchor_target_layer", "proposal_layer").replace("AnchorTargetLayer", "ProposalLayer")


def refusal(workshop, net):
    with pytest.raises(RistrettoError) as refused:
        workshop.load(net)
    return str(refused.value)


def test_it_is_refused_with_its_module_and_layer(workshop):
    assert refusal(workshop, NET) == (
        'net.prototxt:3: layer "own" (Python): Python layers cannot be run: module "rpn.anchor_target_layer", layer '
        '"AnchorTargetLayer". Remove it from the net, or replace it with Caffe layers.'
    )


def test_without_bottoms_or_settings_it_is_refused_too(bench):
    assert 'module "", layer ""' in bench.refusal("Python", "", [], tops=0)


def test_a_known_module_with_another_class_is_refused(workshop):
    assert 'module "rpn.proposal_layer", layer "Other"' in refusal(workshop, KNOWN.replace("ProposalLayer", "Other"))


def test_a_known_one_is_held_to_its_own_numbers_of_bottoms_and_tops(bench, workshop):
    assert refusal(workshop, KNOWN).endswith('layer "own" (Python): ProposalLayer: expected 3 bottoms, got 1')
    settings = 'python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" }'
    assert "ProposalLayer: expected 1 to 2 tops, got 3" in bench.refusal("Python", settings, [(1,)] * 3, tops=3)


def test_a_known_one_cannot_work_in_place(workshop):
    bottoms = 'bottom: "x" bottom: "x" bottom: "x" top: "x"'
    assert "in-place computation is not supported" in refusal(workshop, KNOWN.replace('bottom: "x" top: "y"', bottoms))
