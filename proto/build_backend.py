"""setuptools' build backend, with one step before it: the schema is compiled to the package's caffe.desc.

A descriptor set, unlike generated Python code, does not tie its users to one protobuf version. A source distribution
contains it, so that building from one needs no compiler; compiled_from has the digest of the schema that it is of.
"""

import hashlib
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  (the names by which pip calls a backend)
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

PROTO = Path(__file__).parent
SCHEMA = ("caffe.proto", "forks.proto")
DESCRIPTORS = PROTO.parent / "ristretto_cli" / "caffe_io" / "caffe.desc"
COMPILED_FROM = PROTO / "compiled_from"
COMPILER = "grpcio-tools>=1.62"


def digest():
    """The digest of the schema in proto/."""
    return hashlib.sha256(b"".join((PROTO / name).read_bytes() for name in SCHEMA)).hexdigest()


def is_compiled(target=DESCRIPTORS, compiled_from=COMPILED_FROM):
    """Whether target is the compiled schema as it is now."""
    return target.exists() and compiled_from.exists() and compiled_from.read_text(encoding="ascii") == digest()


def compile_proto(target=DESCRIPTORS, compiled_from=COMPILED_FROM):
    """Compile the schema in proto/ into a FileDescriptorSet at target, one file each, unless this has been done."""
    if is_compiled(target, compiled_from):
        return
    from grpc_tools import protoc

    code = protoc.main(["protoc", f"--proto_path={PROTO}", f"--descriptor_set_out={target}", *SCHEMA])
    if code != 0:
        raise SystemExit(f"protoc could not compile {', '.join(SCHEMA)} in {PROTO} (exit code {code})")
    compiled_from.write_text(digest(), encoding="ascii")


def _requires(hook, config_settings):
    return [*hook(config_settings), *([] if is_compiled() else [COMPILER])]


def get_requires_for_build_wheel(config_settings=None):
    return _requires(build_meta.get_requires_for_build_wheel, config_settings)


def get_requires_for_build_editable(config_settings=None):
    return _requires(build_meta.get_requires_for_build_editable, config_settings)


def get_requires_for_build_sdist(config_settings=None):
    return _requires(build_meta.get_requires_for_build_sdist, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    compile_proto()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    compile_proto()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    compile_proto()
    return build_meta.build_sdist(sdist_directory, config_settings)
