"""The ROS package's files agree with each other: what launch files start and set is there, and parameter files keep to their schema."""

from __future__ import annotations

import ast
import json
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.launch_file import launched

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "runtime" / "ros2" / "percodec_ros"
LAUNCH = sorted((PACKAGE / "launch").iterdir())
TABLE = runpy.run_path(str(PACKAGE / "percodec_ros" / "parameters.py"), run_name="table")
NODES: dict[str, Any] = TABLE["NODES"]


def test_files_written_from_the_table_are_those_it_writes() -> None:
    for name, text in TABLE["files"]().items():
        assert (PACKAGE / name).read_text(encoding="utf-8") == text, f"run: python3 percodec_ros/parameters.py ({name})"
    assert {path.name for path in (PACKAGE / "config").iterdir()} == {f"{node}.param.yaml" for node in NODES}


@pytest.mark.parametrize("node", NODES)
def test_parameter_files_keep_to_their_schema(node: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((PACKAGE / "schema" / f"{node}.schema.json").read_text(encoding="utf-8"))
    checker = jsonschema.Draft7Validator(schema)
    found = yaml.safe_load((PACKAGE / "config" / f"{node}.param.yaml").read_text(encoding="utf-8"))
    checker.validate(found)
    found["/**"]["ros__parameters"]["no_such_parameter"] = 1
    assert not checker.is_valid(found)


@pytest.mark.parametrize("node", NODES)
def test_every_parameter_says_what_it_is(node: str) -> None:
    names = [parameter.name for parameter in NODES[node]]
    assert len(names) == len(set(names))
    for parameter in NODES[node]:
        assert parameter.description, parameter.name
        assert parameter.when in ("start", "configure", "any")
        if type(parameter.default) in (int, float):
            assert parameter.low <= parameter.default <= parameter.high, parameter.name
        assert not parameter.choices or parameter.default in parameter.choices


@pytest.mark.parametrize("file", LAUNCH, ids=lambda path: path.name)
def test_launch_files_start_what_is_there(file: Path) -> None:
    nodes = list(launched(file, PACKAGE))
    assert nodes
    for node in nodes:
        assert node.executable in NODES
        assert all(path.is_file() for path in node.files)
        assert set(node.parameters) <= {parameter.name for parameter in NODES[node.executable]}


def test_executables_are_the_nodes() -> None:
    for node in NODES:
        tree = ast.parse((PACKAGE / "percodec_ros" / f"{node}.py").read_text(encoding="utf-8"))
        assert "main" in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
    setup = ast.parse((PACKAGE / "setup.py").read_text(encoding="utf-8"))
    (names,) = [n.value for n in ast.walk(setup) if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "NODES"]
    assert set(ast.literal_eval(names)) == set(NODES)


def _imports(path: Path) -> dict[str, set[str]]:
    """Module -> names taken from it; `import x` takes none."""
    found: dict[str, set[str]] = {}
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, ast.ImportFrom) and item.module:
            found.setdefault(item.module, set()).update(alias.name for alias in item.names)
        elif isinstance(item, ast.Import):
            found |= {alias.name: set() for alias in item.names}
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "percodec_ros").glob("*.py")), ids=lambda path: path.stem)
def test_nodes_take_public_names_of_the_vehicle_and_of_ros(path: Path) -> None:
    """`percodec.runtime` never takes anything from here: its contract forbids rclpy."""
    for module, names in _imports(path).items():
        assert not module.startswith(("percodec.export", "torch", "onnx", "tensorrt")), module
        assert not any(part.startswith("_") and part != "__future__" for part in module.split(".")), module
        if module.startswith("percodec."):
            source = ROOT / module.split(".")[1] / Path(*module.split("."))
            text = (source / "__init__.py" if source.is_dir() else source.with_suffix(".py")).read_text(encoding="utf-8")
            lists = [item.value for item in ast.parse(text).body if ast.unparse(item).startswith("__all__ =")]
            beside = {entry.stem for entry in source.glob("*.py")}
            assert names <= beside | {name for entry in lists for name in ast.literal_eval(entry)}, module


def test_the_manifest_names_what_the_nodes_import() -> None:
    root = ET.parse(PACKAGE / "package.xml").getroot()
    depends = {element.text for element in root.iter("exec_depend")}
    imported = set()
    for path in (PACKAGE / "percodec_ros").glob("*.py"):
        imported |= {module.removesuffix(".msg") for module in _imports(path) if module.endswith(".msg")}
    assert imported <= depends
    assert root.attrib["format"] == "3"
    assert root.findtext("license") == "Apache-2.0"
