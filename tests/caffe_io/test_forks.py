"""What forks of Caffe add to its schema: read in plain text form, merged into Caffe's own messages."""

from __future__ import annotations

from typing import Any

import pytest

from ristretto_cli.caffe_io.messages import enum_name, enum_value, message_class, new, schema_files
from ristretto_cli.caffe_io.prototxt import parse, to_text
from ristretto_cli.errors import RistrettoError

SSD = """\
name: "ssd"
layer {
  name: "data"
  type: "AnnotatedData"
  top: "data"
  top: "label"
  transform_param {
    mean_value: 104
    resize_param {
      prob: 1
      resize_mode: WARP
      height: 300
      width: 300
      interp_mode: LINEAR
      interp_mode: AREA
    }
    emit_constraint {
      emit_type: CENTER
    }
    expand_param {
      prob: 0.5
      max_expand_ratio: 4
    }
    distort_param {
      hue_prob: 0.5
    }
  }
  annotated_data_param {
    batch_sampler {
      sampler {
        min_scale: 0.3
      }
      sample_constraint {
        min_jaccard_overlap: 0.1
      }
      max_sample: 1
    }
    label_map_file: "labelmap.prototxt"
  }
}
layer {
  name: "norm"
  type: "Normalize"
  bottom: "data"
  top: "norm"
  norm_param {
    across_spatial: false
    scale_filler {
      type: "constant"
      value: 20
    }
    channel_shared: false
  }
}
layer {
  name: "perm"
  type: "Permute"
  bottom: "norm"
  top: "perm"
  permute_param {
    order: 0
    order: 2
    order: 3
    order: 1
  }
}
layer {
  name: "detection"
  type: "DetectionOutput"
  bottom: "loc"
  bottom: "conf"
  bottom: "prior"
  top: "detection"
  detection_output_param {
    num_classes: 21
    nms_param {
      nms_threshold: 0.45
      top_k: 400
    }
    code_type: CENTER_SIZE
    keep_top_k: 200
  }
}
"""

FIELDS = {
    "segnet": "layer { bn_param { bn_mode: INFERENCE shift_filler { value: 0.001 } } upsample_param { scale: 2 } }",
    "pspnet": "layer { bn_param { slope_filler { value: 1 } frozen: true momentum: 0.95 eps: 1e-5 } }",
    "deeplab": "layer { interp_param { height: 33 width: 33 } }",
    "fast r-cnn": "layer { roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 } }",
    "its loss": "layer { smooth_l1_loss_param { sigma: 3 } }",
    "r-fcn": "layer { psroi_pooling_param { output_dim: 21 group_size: 7 spatial_scale: 0.0625 } }",
    "mini-caffe": "layer { proposal_param { ratio: 0.5 scale: 8 scale: 16 } }",
    "shufflenet": "layer { shuffle_channel_param { group: 2 } }",
    "intel": 'engine: "MKL2017" layer { engine: "CAFFE" lrn_param { engine: MKL2017 } concat_param { engine: CAFFE } }',
    "yolo": "layer { reorg_param { stride: 2 } eval_detection_param { biases: 1.5 score_type: MULTIPLY } }",
    "synopsys": 'layer { depth_to_space_param { block_size: 2 data_format: "NCHW" } squeeze_param { axis: 1 } }',
    "multibox": "layer { multibox_loss_param { mining_type: MAX_NEGATIVE loc_loss_type: SMOOTH_L1 } }",
}


def by_name(file: Any) -> dict[str, Any]:
    return {message.name: message for message in file.message_type}


def test_an_ssd_net_is_read_and_printed_again() -> None:
    assert to_text(parse(SSD, "NetParameter", "f").message) == SSD


@pytest.mark.parametrize("text", FIELDS.values(), ids=FIELDS)
def test_fields_of_forks_are_read(text: str) -> None:
    message = parse(text, "NetParameter", "f").message
    assert message.layer[0].ListFields()
    assert parse(to_text(message), "NetParameter", "f").message == message


@pytest.mark.parametrize("param", ["batch_norm_param", "scale_param", "eltwise_param", "inner_product_param"])
@pytest.mark.parametrize("value", ["CUDNN", "2", '"MKLDNN:CPU"'])
def test_an_engine_may_be_chosen_for_every_layer(param: str, value: str) -> None:
    message = parse(f"layer {{ {param} {{ engine: {value} }} }}", "NetParameter", "f").message
    assert message.layer[0].HasField(param)
    assert "engine" not in to_text(message)


@pytest.mark.parametrize(
    ("text", "kind"), [("engine: CUDNN", "SolverParameter"), ("layer { param { engine: CUDNN } }", "NetParameter")]
)
def test_an_engine_elsewhere_is_unknown(text: str, kind: str) -> None:
    with pytest.raises(RistrettoError, match='unknown field "engine"'):
        parse(text, kind, "f")


def test_core_fields_and_those_of_forks_stand_side_by_side() -> None:
    layer = parse('layer { name: "a" permute_param { order: 3 } }', "NetParameter", "f").message.layer[0]
    assert (layer.name, list(layer.permute_param.order)) == ("a", [3])


def test_defaults_are_the_forks() -> None:
    layer = new("LayerParameter")
    assert layer.norm_param.across_spatial
    assert layer.norm_param.eps == pytest.approx(1e-10)
    assert layer.prior_box_param.offset == 0.5
    assert layer.prior_box_param.flip
    assert (layer.detection_output_param.keep_top_k, layer.detection_output_param.share_location) == (-1, True)
    assert enum_name(layer.detection_output_param, "code_type") == "CORNER"
    assert layer.detection_output_param.nms_param.nms_threshold == pytest.approx(0.3)
    assert layer.upsample_param.scale == 2
    assert enum_name(layer.bn_param, "bn_mode") == "LEARN"


def test_values_are_added_to_enums() -> None:
    assert enum_value("LRNParameter.Engine", "CUDNN") == 2
    assert enum_value("LRNParameter.Engine", "MKL2017") == 3
    assert enum_value("PriorBoxParameter.CodeType", "CENTER_SIZE") == 2


def test_field_numbers_of_ssd_are_its_own() -> None:
    fields = message_class("LayerParameter").DESCRIPTOR.fields_by_name
    numbers = {name: fields[name].number for name in ("permute_param", "prior_box_param", "norm_param")}
    assert numbers == {"permute_param": 202, "prior_box_param": 203, "norm_param": 206}


def test_a_message_of_a_fork_survives_the_binary_format() -> None:
    layer = parse(SSD, "NetParameter", "f").message.layer[3]
    again = new("LayerParameter")
    again.ParseFromString(layer.SerializeToString())
    assert again == layer


def test_what_is_added_to_a_message_of_caffe_is_new() -> None:
    core, forks = map(by_name, schema_files())
    for name in core.keys() & forks.keys():
        known, added = core[name], forks[name]
        assert not {field.name for field in known.field} & {field.name for field in added.field}, name
        numbers = [field.number for field in [*known.field, *added.field]]
        assert len(set(numbers)) == len(numbers), name


def test_faults_in_them_are_reported_with_their_place() -> None:
    with pytest.raises(RistrettoError) as refused:
        parse("layer {\n  permute_param { ordr: 1 }\n  roi_pooling_param { pooled_h: -1 }\n}", "NetParameter", "f")
    first, second = str(refused.value).splitlines()
    assert first == 'f:2:19: unknown field "ordr" in PermuteParameter. Did you mean order?'
    assert second.startswith("f:3:33: pooled_h: expected a non-negative integer")


@pytest.mark.parametrize(
    "text",
    [
        "layer { dropout_param { sample_weights_test: true } }",
        "layer { loss_param { weight_by_label_freqs: true } }",
        "layer { batch_norm_param { filler { value: 1 } } }",
    ],
)
def test_settings_that_would_change_what_caffes_own_layers_compute_are_not_passed_over(text: str) -> None:
    with pytest.raises(RistrettoError, match="unknown field"):
        parse(text, "NetParameter", "f")
