"""Names inside .npz files: ordinary ones as they are, none that leads out of the folder it is unpacked in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ristretto_cli.caffe_io.npz import member_name, read_npz, write_npz
from ristretto_cli.errors import RistrettoError

ORDINARY = [
    *(
        "data",
        "conv1/0",
        "fire2/squeeze1x1/0",
        "inception_3a/output",
        "diff:conv1",
        "pdiff:fire2/squeeze/0",
        "conv1..x/0",
    ),
    *(".hidden/0", "a.b/0", "100%", "50% of/0", "res2a branch/0", "größe/0", "xy:0", "~/0", ""),
]
ESCAPED = {
    "../../evil/0": "%2E%2E/%2E%2E/evil/0",
    "a/../b": "a/%2E%2E/b",
    "a/./b": "a/%2E/b",
    "..": "%2E%2E",
    "a/.. /b": "a/%2E%2E /b",
    "/etc/passwd/0": "%2Fetc/passwd/0",
    "//host/share": "%2F%2Fhost/share",
    "a//b": "a/%2Fb",
    "C:/x/0": "C%3A/x/0",
    "c:x": "c%3Ax",
    "..\\evil": "..%5Cevil",
    "nul\0l": "nul%00l",
    "line\n/0": "line%0A/0",
    "%2E%2E/0": "%252E%252E/0",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert member_name(name) == f"{name}.npy"


@pytest.mark.parametrize("name", ESCAPED)
def test_a_name_that_could_lead_elsewhere_is_escaped(name: str) -> None:
    assert member_name(name) == f"{ESCAPED[name]}.npy"


@given(st.lists(st.text(st.sampled_from("ab.:/\\% 2E5CF\0"), max_size=8), unique=True, max_size=4))
def test_every_member_is_a_file_below_the_folder_and_different_names_stay_different(names: list[str]) -> None:
    members = [member_name(name) for name in names]
    assert len(set(members)) == len(members)
    for member in members:
        folders = member.split("/")
        assert "" not in folders[:-1]
        assert not {folder.strip(". ") for folder in folders if "." in folder[:1]} & {""}
        assert "\\" not in member
        assert "\0" not in member
        assert not (member[1:2] == ":" and member[0].isalpha())


def test_what_is_written_can_be_unpacked_and_is_read_under_its_own_names(tmp_path: Path) -> None:
    arrays = {name: np.full(1, i, np.float32) for i, name in enumerate([*ORDINARY, *ESCAPED, *ESCAPED.values()])}
    write_npz(tmp_path / "x.npz", arrays)
    folder = tmp_path / "a" / "folder"
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        names = archive.namelist()
        archive.extractall(folder)
    assert len(set(names)) == len(arrays)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(names)
    assert {name: array.tolist() for name, array in read_npz(tmp_path / "x.npz").items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_names_with_a_percent_sign_that_were_not_escaped_are_read_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"conv%41": np.ones(1), "a%2Fb": np.ones(1)})
    assert sorted(read_npz(tmp_path / "x.npz")) == ["a%2Fb", "conv%41"]


@pytest.mark.parametrize(
    ("name", "reported"),
    [("x" * 70_000, "it is too long"), ("x\udcff", "it is not Unicode")],
    ids=["long", "not Unicode"],
)
def test_a_name_that_a_zip_file_cannot_hold_is_refused(name: str, reported: str, tmp_path: Path) -> None:
    with pytest.raises(RistrettoError, match=reported):
        write_npz(tmp_path / "x.npz", {name: np.ones(1, np.float32)})
    assert list(tmp_path.iterdir()) == []
