"""Nets and solvers from prototxt files, with the places of their layers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ristretto_cli.caffe_io.net_file import read_net, read_solver
from ristretto_cli.errors import RistrettoError


def write(folder: Path, text: str) -> Path:
    file = folder / "net.prototxt"
    file.write_text(text)
    return file


def test_layers_know_their_lines(tmp_path: Path) -> None:
    file = write(tmp_path, 'name: "n"\nlayer { name: "a" }\n\nlayer {\n name: "b" }\n')
    net = read_net(file)
    assert net.file == str(file)
    assert [layer.name for layer in net.message.layer] == ["a", "b"]
    assert [place.line for place in net.layers] == [2, 4]
    assert str(net.layers[1]) == f"{file}:4"
    assert net.complete


def test_lines_survive_upgrades(tmp_path: Path) -> None:
    text = (
        'name: "n"\ninput: "x"\ninput_dim: [1, 2, 3, 4]\n'
        'layers { layer { type: "padding" pad: 1 } bottom: "x" top: "p" }\n'
        'layers { layer { name: "c" type: "conv" } bottom: "p" top: "c" }\n'
    )
    net = read_net(write(tmp_path, text))
    assert [(layer.type, place.line) for layer, place in zip(net.message.layer, net.layers, strict=True)] == [
        ("Input", 2),
        ("Convolution", 5),
    ]


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ('name: "n"', "the net has no layers"),
        ("layer { }\nlayers { }", ":2: the net has both"),
        ('layer { }\ninput: "a"\ninput_dim: 1', ":2: the net has 1 input_dim"),
    ],
)
def test_what_is_no_net_is_reported(tmp_path: Path, text: str, reported: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(RistrettoError) as caught:
        read_net(file)
    assert str(caught.value).startswith(str(file))
    assert reported in str(caught.value)


def test_a_net_of_only_inputs_is_valid(tmp_path: Path) -> None:
    net = read_net(write(tmp_path, 'input: "a" input_dim: [1, 1, 1, 1]'))
    assert [layer.type for layer in net.message.layer] == ["Input"]


def test_a_solver(tmp_path: Path) -> None:
    file = tmp_path / "lenet_solver.prototxt"
    file.write_text('net: "n"\nbase_lr: 0.1\nsolver_type: ADAM\nsnapshot_prefix: "p"\n')
    solver = read_solver(file)
    assert (solver.message.net, solver.message.type, solver.message.snapshot_prefix) == ("n", "Adam", "p")
    assert not solver.message.HasField("solver_type")


def test_a_snapshot_prefix_has_the_solvers_name_where_none_or_a_folder_is_given(tmp_path: Path) -> None:
    file = tmp_path / "s.v1.prototxt"
    file.write_text("base_lr: 0.1")
    assert read_solver(file).message.snapshot_prefix == str(tmp_path / "s.v1")
    file.write_text(f'snapshot_prefix: "{tmp_path}"')
    assert read_solver(file).message.snapshot_prefix == str(tmp_path / "s.v1")


def test_nets_inside_a_solver_are_upgraded_and_know_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "s.prototxt"
    file.write_text(
        "net_param {\n layers { type: RELU }\n}\ntest_net_param { layer { } }\ntest_net_param {\n\n layer { } }\n"
    )
    solver = read_solver(file)
    net = solver.net("net_param")
    assert net.message.layer[0].type == "ReLU"
    assert str(net.layers[0]) == f"{file}:2"
    assert solver.net("test_net_param", 1).layers[0].line == 7


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "the file is empty"),
        ('type: "Adam"\nsolver_type: ADAM', ":2: the solver has both solver_type and type"),
        ("layer { }", "is this file a net?"),
    ],
)
def test_what_is_no_solver_is_reported(tmp_path: Path, text: str, reported: str) -> None:
    with pytest.raises(RistrettoError) as caught:
        read_solver(write(tmp_path, text))
    assert reported in str(caught.value)


@pytest.mark.parametrize("text", ["base_lr: 1", 'snapshot_prefix: "."'])
def test_a_solver_whose_name_is_not_utf_8_needs_a_snapshot_prefix(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(os.fsdecode(b"caf\xe9.prototxt"))
    try:
        file.write_text(text)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(RistrettoError, match=r"the file's name is not UTF-8, .*\. Set snapshot_prefix to a name"):
        read_solver(file)
    file.write_text('snapshot_prefix: "p"')
    assert read_solver(file).message.snapshot_prefix == "p"
