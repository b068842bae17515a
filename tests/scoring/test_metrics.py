"""The output by which a net is scored."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.metrics import default_score, heads

INPUTS = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 8 } } }
    layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 } } }
    layer { name: "z" type: "Input" top: "z" input_param { shape { dim: 2 } } }
"""


def layer(layer_type: str, bottoms: str, top: str, settings: str = "") -> str:
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{top} of {bottoms}" type: "{layer_type}" {read} top: "{top}" {settings} }}\n'


def fc(bottom: str, top: str) -> str:
    return layer("InnerProduct", bottom, top, "inner_product_param { num_output: 6 }")


def accuracy(bottoms: str, top: str, top_k: int = 1) -> str:
    return layer("Accuracy", bottoms, top, f"accuracy_param {{ top_k: {top_k} }}")


def found(workshop: Any, *layers: str) -> list[str]:
    return heads(workshop.load(INPUTS + "".join(layers)))


def test_the_one_accuracy_layer_is_the_score_not_the_first_output_by_alphabet(workshop: Any) -> None:
    layers = (fc("x", "a"), layer("SoftmaxWithLoss", "a y", "loss"), accuracy("a y", "zacc"))
    assert found(workshop, *layers) == ["zacc"]


@pytest.mark.parametrize("aux_first", [True, False])
def test_of_two_heads_the_one_after_more_layers_is_first(workshop: Any, aux_first: bool) -> None:
    aux = fc("x", "aux") + accuracy("aux y", "aux_acc")
    main = fc("x", "a") + layer("ReLU", "a", "a") + fc("a", "b") + accuracy("b y", "acc")
    layers = [aux, main] if aux_first else [main, aux]
    assert found(workshop, *layers) == ["acc", "aux_acc"]


def test_three_heads_with_top_1_and_top_5_each_as_in_googlenet(workshop: Any) -> None:
    def judged(scores: str, head: str) -> str:
        # Two lines as in GoogLeNet, with top-5 in front of top-1 for one head.
        pair = [accuracy(f"{scores} y", f"{head}/top-1"), accuracy(f"{scores} y", f"{head}/top-5", 5)]
        return "".join(pair[::-1] if head == "loss3" else pair) + layer("SoftmaxWithLoss", f"{scores} y", head)

    stem = fc("x", "s1") + fc("s1", "s2") + fc("s2", "s3")
    loss1 = fc("s1", "h1") + fc("h1", "c1") + judged("c1", "loss1")
    loss2 = fc("s2", "h2") + fc("h2", "c2") + judged("c2", "loss2")
    loss3 = layer("Concat", "s3 s2", "all") + fc("all", "c3") + judged("c3", "loss3")
    for order in ((loss1, loss2, loss3), (loss3, loss2, loss1)):
        assert found(workshop, stem, *order) == ["loss3/top-1", "loss2/top-1", "loss1/top-1"]


@pytest.mark.parametrize("between", ["Split", "Softmax", "Reshape"])
def test_accuracy_layers_on_one_blob_are_one_head_with_the_lowest_top_k(workshop: Any, between: str) -> None:
    shape = "reshape_param { shape { dim: 0 dim: -1 } }" if between == "Reshape" else ""
    again = layer(between, "a", "b", shape)
    for top5, top1 in (("a y", "b y"), ("b y", "a y"), ("b y", "b y")):
        for pair in (
            [accuracy(top5, "top5", 5), accuracy(top1, "top1")],
            [accuracy(top1, "top1"), accuracy(top5, "top5", 5)],
        ):
            assert found(workshop, fc("x", "a"), again, *pair) == ["top1"]


def test_scores_that_a_layer_works_on_in_place_are_one_head(workshop: Any) -> None:
    scores = fc("x", "a") + layer("Dropout", "a", "a") + layer("Split", "a", "b")
    assert found(workshop, scores, accuracy("b y", "top5", 5), accuracy("a y", "top1")) == ["top1"]


def test_of_equal_accuracy_layers_of_one_head_the_first_is_the_score(workshop: Any) -> None:
    assert found(workshop, fc("x", "a"), accuracy("a y", "second"), accuracy("a y", "first")) == ["second"]


def test_one_score_compared_with_the_labels_of_two_tasks_is_two_heads(workshop: Any) -> None:
    # Of paths of equal length the last in the file comes first.
    assert found(workshop, fc("x", "a"), accuracy("a y", "y1"), accuracy("a z", "z1")) == ["z1", "y1"]
    assert found(workshop, fc("x", "a"), accuracy("a z", "z1"), accuracy("a y", "y1")) == ["y1", "z1"]


def test_layers_that_only_rename_memory_make_no_path_longer(workshop: Any) -> None:
    renamed = layer("Split", "x", "x1") + layer("Split", "x1", "x2") + fc("x2", "a") + accuracy("a y", "renamed")
    computed = layer("Power", "x", "p") + fc("p", "b") + accuracy("b y", "computed")
    assert found(workshop, computed, renamed) == ["computed", "renamed"]


def test_the_longest_of_a_heads_paths_counts(workshop: Any) -> None:
    deep = fc("x", "d1") + fc("d1", "d2") + fc("d2", "d3")
    joined = layer("Eltwise", "x6 d3", "sum") + accuracy("sum y", "joined")
    straight = fc("x6", "s1") + fc("s1", "s2") + accuracy("s2 y", "straight")
    assert found(workshop, fc("x", "x6"), deep, joined, straight) == ["joined", "straight"]


def test_a_pooled_head_of_a_layer_that_works_in_place_counts_each_step(workshop: Any) -> None:
    long = fc("x", "a") + layer("ReLU", "a", "a") + layer("Power", "a", "a") + accuracy("a y", "long")
    short = fc("x", "b") + layer("ReLU", "b", "b") + accuracy("b y", "short")
    assert found(workshop, long, short) == ["long", "short"]


def test_an_accuracy_that_a_layer_reads_is_no_output(workshop: Any) -> None:
    silenced = accuracy("a y", "silenced") + 'layer { name: "s" type: "Silence" bottom: "silenced" }'
    assert found(workshop, fc("x", "a"), silenced, layer("SoftmaxWithLoss", "a y", "loss")) == ["loss"]


def test_a_net_with_only_losses_is_scored_by_the_deepest(workshop: Any) -> None:
    deep = fc("x", "a") + fc("a", "b") + layer("EuclideanLoss", "b a", "deep")
    tags = fc("x", "t") + layer("SoftmaxWithLoss", "t y", "tags") + layer("HingeLoss", "t y", "hinge")
    assert found(workshop, deep, tags) == ["deep", "tags"]


def test_outputs_that_nothing_is_compared_with_are_no_heads(workshop: Any) -> None:
    assert found(workshop, fc("x", "a"), layer("Softmax", "a", "prob")) == []


def test_detections_evaluated_twice_are_one_head_those_of_two_outputs_are_two(bright_halves: Any) -> None:
    text = (bright_halves.folder / "net.prototxt").read_text()
    evaluation = "include { phase: TEST } detection_evaluate_param { num_classes: 2 overlap_threshold: %s }"
    stricter = layer("DetectionEvaluate", "found label", "stricter", evaluation % 0.9)
    assert heads(bright_halves.load(text + stricter)) == ["detection_eval"]
    at = text.index('layer { name: "out"')
    output = text[at : text.index('layer { name: "eval"')]
    again = output.replace('"out"', '"out2"').replace('"found"', '"found2"')
    other = layer("DetectionEvaluate", "found2 label", "other", evaluation % 0.5)
    assert heads(bright_halves.load(text + again + other)) == ["other", "detection_eval"]


# --- the default


def test_several_heads_are_warned_of_with_the_flag_that_chooses(
    workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    aux = fc("x", "c") + accuracy("c y", "aux") + fc("x", "d") + accuracy("d y", "aux2")
    net = workshop.load(INPUTS + aux + fc("x", "a") + fc("a", "b") + accuracy("b y", "acc"))
    assert default_score(net) == "acc"
    assert caplog.messages == [
        "The net has 3 heads. The score is acc, at the end of the longest path; others: aux2, aux. Choose with --score."
    ]


def test_top_1_and_top_5_are_not_warned_of(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ristretto")
    net = workshop.load(INPUTS + fc("x", "a") + accuracy("a y", "top5", 5) + accuracy("a y", "top1"))
    assert default_score(net) == "top1"
    assert caplog.messages == []


def test_a_net_without_accuracy_and_loss_asks_for_a_score(workshop: Any) -> None:
    with pytest.raises(RistrettoError) as refused:
        default_score(workshop.load(INPUTS + layer("Softmax", "x", "prob")))
    assert str(refused.value) == (
        "net.prototxt: the net has no Accuracy layer and no loss to score by. "
        "Compare it with its float net by --score agreement (classes) or --score sqnr (any output), "
        "or name one of its outputs: prob, y, z."
    )
