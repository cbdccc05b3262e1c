"""Built by colcon. The executables are the nodes; launch, parameter and schema files are installed beside them."""

from pathlib import Path

from setuptools import setup

NAME = "percodec_ros"
NODES = ("encode", "predict", "decode", "camera")
FOLDERS = {"launch": "*.xml", "config": "*.yaml", "schema": "*.json"}

here = Path(__file__).parent


def installed(folder: str, kind: str) -> tuple[str, list[str]]:
    """Where the files of a folder go."""
    return f"share/{NAME}/{folder}", sorted(f"{folder}/{path.name}" for path in (here / folder).glob(kind))


setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml", "check.sh"]),
        *(installed(folder, kind) for folder, kind in FOLDERS.items()),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="The percodec authors",
    maintainer_email="percodec@example.org",
    description="The ROS 2 nodes of percodec",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"{node} = {NAME}.{node}:main" for node in NODES]},
)
