"""setuptools' build backend, with one step before it: the schema is compiled to the package's caffe.desc.

A descriptor set, unlike generated Python code, does not tie its users to one protobuf version.
"""

from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  (the names by which pip calls a backend)
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

PROTO = Path(__file__).parent
SCHEMA = ("caffe.proto", "forks.proto")
DESCRIPTORS = PROTO.parent / "ristretto_cli" / "caffe_io" / "caffe.desc"


def compile_proto(target=DESCRIPTORS):
    """Compile the schema in proto/ into a FileDescriptorSet at target, one file each."""
    from grpc_tools import protoc

    code = protoc.main(["protoc", f"--proto_path={PROTO}", f"--descriptor_set_out={target}", *SCHEMA])
    if code != 0:
        raise SystemExit(f"protoc could not compile {', '.join(SCHEMA)} in {PROTO} (exit code {code})")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    compile_proto()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    compile_proto()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    return build_meta.build_sdist(sdist_directory, config_settings)
