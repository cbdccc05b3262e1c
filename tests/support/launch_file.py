"""XML launch files without launch: what `ros2 launch` would start, for the few elements that our files use."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KNOWN = {"launch": set(), "arg": {"name", "default", "value", "description"}, "include": {"file"}, "remap": {"from", "to"}}
KNOWN |= {"node": {"pkg", "exec", "name", "namespace", "output"}, "param": {"from", "name", "value"}}


@dataclass(frozen=True)
class Launched:
    """One node: its executable, files of parameters, parameters that come after them, and the words behind --ros-args that say all this."""

    executable: str
    files: list[Path]
    parameters: dict[str, str]
    words: list[str]


def launched(file: Path, share: Path, **given: str) -> Iterator[Launched]:
    """The nodes of `file`; `share` is what find-pkg-share gives. Raises AssertionError for anything that it does not know."""
    root = ET.parse(file).getroot()
    values = dict(given)

    def text(written: str) -> str:
        found = re.sub(r"\$\(find-pkg-share percodec_ros\)", str(share), written)
        found = re.sub(r"\$\(var (\w+)\)", lambda match: values[match[1]], found)
        assert "$(" not in found, written
        return found

    declared = set()
    for element in root:
        assert set(element.attrib) <= KNOWN[element.tag], element.attrib
        if element.tag == "arg":
            assert element.get("description"), f"{file.name}: {element.get('name')}"
            declared.add(element.attrib["name"])
            values.setdefault(element.attrib["name"], text(element.attrib["default"]))
        elif element.tag == "include":
            arguments = {child.attrib["name"]: text(child.attrib["value"]) for child in element}
            yield from launched(Path(text(element.attrib["file"])), share, **arguments)
        else:
            yield _node(element, text)
    assert set(given) <= declared, f"{file.name} has no argument {set(given) - declared}"


def _node(element: ET.Element, text: object) -> Launched:
    assert element.tag == "node", element.tag
    assert callable(text)
    files, parameters = [], {}
    words = ["-r", f"__node:={element.attrib['name']}", "-r", f"__ns:=/{text(element.attrib['namespace'])}"]
    for child in element:
        assert set(child.attrib) <= KNOWN[child.tag], child.attrib
        if child.tag == "remap":
            words += ["-r", f"{child.attrib['from']}:={text(child.attrib['to'])}"]
        elif "from" in child.attrib:
            files.append(Path(text(child.attrib["from"])))
            words += ["--params-file", str(files[-1])]
        else:
            name, value = child.attrib["name"], text(child.attrib["value"])
            parameters[name] = value
            words += ["-p", f"{name}:={value or chr(39) * 2}"]
    return Launched(element.attrib["exec"], files, parameters, words)


__all__ = ["Launched", "launched"]
