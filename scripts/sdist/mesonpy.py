"""Stands in for the build backend of a Python source package that we want for the C sources in it.

`pip download` checks the package's hash, then asks the package's backend for its metadata before handing it out; the
real backend (meson-python) would configure the whole build for that, with Cython and Python's headers. The answer
below is enough for a package that is never installed.
"""
import os


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name = version = None
    with open("PKG-INFO", encoding="utf-8") as info:
        for line in info:
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "Name" and name is None:
                name = value
            elif field == "Version" and version is None:
                version = value
    folder = f"{name}-{version}.dist-info"
    os.makedirs(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w", encoding="utf-8") as out:
        out.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    raise RuntimeError("this backend only answers for metadata")


def get_requires_for_build_wheel(config_settings=None):
    return []
