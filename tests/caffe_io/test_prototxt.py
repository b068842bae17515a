"""Reading text format: the language of Caffe's C++ parser; all errors are reported, with their places."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ristretto_cli.caffe_io.prototxt import parse, read
from ristretto_cli.errors import RistrettoError, RistrettoErrors


def net(text: str) -> Any:
    return parse(text, "NetParameter", "net.prototxt").message


def layer(text: str) -> Any:
    return parse(text, "LayerParameter", "layer.prototxt").message


def faults(text: str, message: str = "NetParameter") -> list[str]:
    with pytest.raises(RistrettoError) as caught:
        parse(text, message, "f")
    return str(caught.value).splitlines()


# numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("- 3", -3),
        ("0x1F", 31),
        ("0X1f", 31),
        ("010", 8),
        ("00", 0),
        ("2147483647", 2**31 - 1),
    ],
)
def test_integers_are_decimal_hexadecimal_or_octal(text: str, value: int) -> None:
    assert net(f"input_dim: {text}").input_dim == [value]


@pytest.mark.parametrize(
    "text", ["3.0", "1e3", "+3", '"3"', "09", "0x", "2147483648", "-2147483649", "9" * 5000, "3a", "--3"]
)
def test_other_words_are_no_integers(text: str) -> None:
    assert faults(f"input_dim: {text}")[0].startswith("f:1:")


def test_unsigned_fields_take_no_minus() -> None:
    text = "inner_product_param { num_output: -3 }"
    assert faults(text, "LayerParameter") == ["f:1:35: num_output: expected a non-negative integer, found -"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.", 1.0),
        (".5", 0.5),
        ("2F", 2.0),
        ("1.5f", 1.5),
        ("-2e-3", -0.0020000000949949026),
        ("1e+2", 100.0),
        ("7", 7.0),
        ("99999999999999999999", 1e20),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        ("1e39", math.inf),
    ],
)
def test_floats(text: str, value: float) -> None:
    assert layer(f"loss_weight: {text}").loss_weight == [pytest.approx(value, rel=1e-7)]


def test_nan_is_a_float() -> None:
    assert math.isnan(layer("loss_weight: nan").loss_weight[0])


@pytest.mark.parametrize("text", ["0x10", "010", "1.5.2", "1e", "1fF", "infinite", "true", "+1", ".", "1_0"])
def test_other_words_are_no_floats(text: str) -> None:
    assert faults(f"loss_weight: {text}", "LayerParameter")


@pytest.mark.parametrize("text", ["true", "True", "t", "1", "01", "0x1"])
def test_words_for_true(text: str) -> None:
    assert net(f"force_backward: {text}").force_backward is True


@pytest.mark.parametrize("text", ["false", "False", "f", "0"])
def test_words_for_false(text: str) -> None:
    message = net(f"force_backward: {text}")
    assert message.HasField("force_backward")
    assert message.force_backward is False


@pytest.mark.parametrize("text", ["TRUE", "yes", "2", "-1", '"true"', "1.0"])
def test_other_words_are_no_booleans(text: str) -> None:
    assert faults(f"force_backward: {text}")


@pytest.mark.parametrize("text", ["AVE", "1", "01", "0x1"])
def test_enums_go_by_name_or_number(text: str) -> None:
    assert layer(f"pooling_param {{ pool: {text} }}").pooling_param.pool == 1


def test_a_wrong_enum_value_lists_the_right_ones() -> None:
    assert faults("eltwise_param { operation: SUB }", "LayerParameter") == [
        "f:1:28: operation: SUB is not a value of EltwiseOp. Did you mean SUM? Known: PROD, SUM, MAX."
    ]


# strings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'single \"inside\"' ' and joined'", 'single "inside" and joined'),
        (r'"\tend\n"', "\tend\n"),
        (r'"\x41\102\\\?\'\""', "AB\\?'\""),
        (r'"\X414"', "A4"),
        (r'"\1018"', "A8"),
        (r'"\303\251"', "é"),
        ('"é"', "é"),
        (r'"\u00e9\U0001F600"', "é\U0001f600"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ('"a" # one\n "b"', "ab"),
        ('""', ""),
    ],
)
def test_strings(text: str, value: str) -> None:
    assert net(f"name: {text}").name == value


@pytest.mark.parametrize(
    "text",
    ['"a', '"a\nb"', r'"\8"', r'"\xg"', r'"\u12"', r'"\U00110000"', r'"\377"', r'"\ud83d"', "a", "5", '"a\\'],
)
def test_other_words_are_no_strings(text: str) -> None:
    assert faults(f"name: {text}")


# structure


def test_separators_and_both_kinds_of_brackets() -> None:
    message = net('name: "a"; layer: < name: "b", top: "c"; >, layer { name: "d" };')
    assert (message.name, [item.name for item in message.layer]) == ("a", ["b", "d"])


def test_lists_of_values_and_of_messages() -> None:
    message = net('input_dim: [1, 2,3] input_dim: 4 input: [] layer: [ { name: "a" }, < name: "b" > ]')
    assert message.input_dim == [1, 2, 3, 4]
    assert message.input == []
    assert [item.name for item in message.layer] == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["input_dim: [1, 2,]", "input_dim: [1 2]", "name: ['a']", "input_dim [1]", "input_dim: [1"]
)
def test_other_lists_are_refused(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text", ["layer <}", "layer {", "layer", "layer: 3", "}", "name 'a'", "name = 'a'", ";", "[a.b]: 1"]
)
def test_other_structures_are_refused(text: str) -> None:
    assert faults(text)


def test_a_message_may_be_empty_and_is_then_set() -> None:
    assert net("state { }").HasField("state")


@pytest.mark.parametrize("text", ["state { } state { }", 'name: "a" name: "b"'])
def test_a_single_value_is_not_given_twice(text: str) -> None:
    assert "is given twice, first on line 1" in faults(text)[0]


def test_missing_required_fields_are_reported() -> None:
    assert faults("clip_param {\n min: 1 }", "LayerParameter") == ["f:1:1: ClipParameter: missing max. Add it."]


def test_comments_may_hold_any_bytes(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_bytes(b'name: "a" # \x96kind\x94 \x01\nlayer {}')
    assert read(file, "NetParameter").message.name == "a"


@pytest.mark.parametrize("text", ['\x01name: "a"', '\ufeffname: "a"', 'name: "a" ü', "nämé: 'a'"])
def test_letters_outside_of_strings_are_ascii(text: str) -> None:
    assert faults(text)


# places and faults


def test_lines_of_layers_are_known() -> None:
    parsed = parse('name: "a"\nlayer {\n}\n\nlayer { } layer: [ { },\n{ } ]', "NetParameter", "f")
    assert parsed.lines["layer"] == (2, 5, 5, 6)
    assert parsed.lines["name"] == (1,)
    assert str(parsed.where("layer", 3)) == "f:6"


def test_lines_of_nets_inside_a_solver_are_known() -> None:
    text = "base_lr: 1\nnet_param {\n layer { }\n layer { }\n}\ntest_net_param { }\ntest_net_param {\n layer { }\n}"
    parsed = parse(text, "SolverParameter", "f")
    assert parsed.lines["net_param.layer"] == (3, 4)
    assert parsed.lines["test_net_param[1].layer"] == (8,)


def test_an_unknown_field_is_reported_with_the_nearest_known_one() -> None:
    assert faults('layer {\n  name: "x"\n  botom: "y"\n}') == [
        'f:3:3: unknown field "botom" in LayerParameter. Did you mean bottom?'
    ]


def test_all_faults_are_reported_in_order_of_place() -> None:
    text = (
        'nam: "a"\nlayer {\n tpye: "x"\n pooling_param { pool: MEAN stride: -1 }\n}\n'
        "layer { name: 5 }\nforce_backward: no"
    )
    reported = faults(text)
    assert [line.split(": ")[0] for line in reported] == [
        "f:1:1",
        "f:3:2",
        "f:4:24",
        "f:4:37",
        "f:6:15",
        "f:7:17",
    ]


def test_a_fault_does_not_hide_or_raise_others() -> None:
    """Behind each fault exactly the wrong value is passed over."""
    text = (
        'unknown { a { b: [1, {}] } c: "}" }\nother: [ { x: 1 } ]\nname "a"\n'
        'layer { top: x bottom: "y" }\ninput_dim: [1, x, 3]'
    )
    assert [line.split(":")[1] for line in faults(text)] == ["1", "2", "3", "4", "5"]


def test_a_missing_value_does_not_swallow_the_next_field() -> None:
    assert faults('layer {\n name:\n type: "x"\n}') == ["f:3:2: name: expected a string in quotes, found type"]


def test_at_most_20_faults_are_reported_and_the_others_counted() -> None:
    reported = faults("".join(f"x{i}: 1\n" for i in range(25)))
    assert len(reported) == 21
    assert reported[-1] == "f: 5 more errors"


def test_of_faults_that_are_alike_three_are_reported_and_the_others_counted() -> None:
    reported = faults("x: 1\n" * 25 + "y: 1\n")
    assert [line.split(" ", 1)[0] for line in reported] == ["f:1:1:", "f:2:1:", "f:3:1:", "f:26:1:", "f:"]
    assert reported[-1] == 'f: 22 more times: unknown field "x" in NetParameter'


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("layer { quantization_param { bw_parms: 8 } }", "Did you mean bw_params?"),
        ("layer { quantization_param { bw_sum: 8 } }", "It is of a fork that is not supported."),
        ("layer { quantization_param { bw_add: 8 } }", "use ConvolutionRistretto or FcRistretto."),
        ("layer { batch_norm_param { filler { value: 1 } } }", "followed by Scale { bias_term: true }."),
        ("layer { accuracy_iou_param { k: 1 } }", "It is of a layer type that is not supported."),
        ("layer { poling_param { pool: MAX } }", "Did you mean pooling_param?"),
        ("layer { bitplane_param { bw_layer: 8 } }", "It is of a layer type that is not supported."),
    ],
)
def test_a_field_of_a_fork_is_not_mistaken_for_a_misspelled_one(text: str, hint: str) -> None:
    (fault,) = faults(text)
    assert fault.endswith(hint)


def test_one_fault_is_one_error_and_several_are_errors() -> None:
    with pytest.raises(RistrettoErrors) as caught:
        net("x: 1 y: 2")
    assert len(caught.value.errors) == 2


def test_a_solver_given_for_a_net_is_recognized() -> None:
    assert faults("base_lr: 0.1") == [
        'f:1:1: unknown field "base_lr" in NetParameter. It is a field of SolverParameter: is this file a solver?'
    ]


@pytest.mark.parametrize("opening", ["x {", "x: [", "x <", "layer {", "x: [ {"])
def test_deep_nesting_ends(opening: str) -> None:
    assert faults(opening * 20_000)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        '"' * 100_000,
        "1" * 1_000_000,
        "name: " + '"a" ' * 100_000 + "}",
        "# " * 100_000 + "\n}",
        "= " * 50_000,
    ],
)
def test_long_nonsense_is_reported_and_shortened(text: str) -> None:
    assert all(len(line) < 300 for line in faults(text))


# files


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RistrettoError, match=r"none\.prototxt: this file does not exist"):
        read(tmp_path / "none.prototxt", "NetParameter")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RistrettoError, match="is a folder"):
        read(tmp_path, "NetParameter")


def test_a_binary_file(tmp_path: Path) -> None:
    file = tmp_path / "net.caffemodel"
    file.write_bytes(b"\x0a\x03net\xa2\x06\x10\x00\x00\x80?")
    with pytest.raises(RistrettoError, match=r"net\.caffemodel: this is not a text file"):
        read(file, "NetParameter")
