"""The pages keep their word: marked blocks run, every command and option they show exists, every link leads somewhere.

    <!-- test: run -->      the block below runs, in a folder that holds what a first reader has: see `first_steps`
    <!-- test: continue --> the block below runs in the folder that the block above leaves
    <!-- test: budget -->   the block below is a budget of `percodec profile`
    <!-- test: serve -->    the block below runs beside `percodec serve`, whose addresses stand for 127.0.0.1:8000 and 127.0.0.1:8001

A shell line without a mark has its arguments checked: by the parser of the command, or by what its tool is given here. A page can show no
command that nothing here can judge, and no Python that does not run.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from support.launch_file import launched
from support.once import Once

from percodec.sdk import cli
from percodec.sdk.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
ROAD = ROOT / "runtime" / "percodec" / "runtime" / "bundles" / "road"
FOLDERS = (".", "sdk", "runtime", "runtime/ros2/percodec_ros", "export", "benchmarks")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
ROS = ROOT / "runtime" / "ros2" / "percodec_ros"
SPECS = sorted((ROOT / "sdk" / "percodec").rglob("*.md"))
GUIDES = {"README.md", "sdk/README.md", "runtime/README.md", "export/README.md", "benchmarks/README.md"}
GUIDES |= {"runtime/ros2/percodec_ros/README.md"}
FENCE = re.compile(r"(?:<!-- test: (?P<mark>\w+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
TABLE = re.compile(r"<!-- table \w+ -->.*?<!-- end table -->", re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
OPTION = re.compile(r"--?[a-z][\w-]*")
# Options that a page names in its text and that belong to none of our commands.
FOREIGN = {"--system-site-packages", "--help"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    number: int
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


BLOCKS = [
    Block(_name(page), number, m["language"], m["text"], m["mark"])
    for page in PAGES
    for number, m in enumerate(FENCE.finditer(_text(page)), start=1)
]
# Shell lines that do not run here, and the commands that the text and the tables name.
LINES = sorted({line for b in BLOCKS if b.language == "sh" and b.mark is None for line in b.text.splitlines() if line.strip(" #")})
NAMED = sorted({m[1] for page in PAGES for m in re.finditer(r"`((?:percodec|python) [^`]+)`", FENCE.sub("", _text(page)))})


def _environment() -> dict[str, str]:
    """The environment of someone who has activated the one the tests run in."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def _what_a_reader_has(folder: Path) -> None:
    """Results of the demo, a video, a picture, a folder of pictures, a bundle, and the tree itself."""
    import cv2

    from percodec.sdk import Bundle

    folder.mkdir()
    _run(["percodec", "demo", "--frames", "8", "--no-selftest"], folder)
    (overlay,) = (folder / "percodec-demo").glob("overlay.*")
    shutil.copy(overlay, folder / "drive.mp4")
    (folder / "pictures").mkdir()
    for number, frame in enumerate(Bundle.open(ROAD).selftest().frames):
        for path in (folder / "frame.png", folder / "pictures" / f"{number}.png"):
            assert cv2.imwrite(str(path), frame[:, :, ::-1])
    (folder / "bundles").mkdir()
    (folder / "bundles" / "road").symlink_to(ROAD)
    for name in ("benchmarks", "export", "runtime", "sdk"):
        (folder / name).symlink_to(ROOT / name)


@pytest.fixture
def first_steps(once: Once, tmp_path: Path) -> Path:
    """A copy of what a first reader has, for one block to work in."""
    pytest.importorskip("cv2", reason="needs the ort extra")
    return shutil.copytree(once("reader", _what_a_reader_has), tmp_path / "reader", symlinks=True)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.mark == "run"], ids=str)
def test_marked_blocks_run(block: Block, first_steps: Path) -> None:
    after = [b for b in BLOCKS if b.page == block.page and b.number > block.number]
    for each in [block, *itertools.takewhile(lambda b: b.mark == "continue", after)]:
        _run({"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[each.language] + [each.text], first_steps)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.mark == "serve"], ids=str)
def test_blocks_run_beside_a_server(block: Block, first_steps: Path) -> None:
    pytest.importorskip("grpc", reason="needs the serve extra")
    if "tritonclient" in block.text:
        pytest.importorskip("tritonclient", reason="needs tritonclient")
    _run(["percodec", "encode", "frame.png", "-o", "frame.pcpk"], first_steps)
    command = ["percodec", "serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--no-selftest", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=first_steps, env=_environment(), stdin=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            text = block.text.replace("127.0.0.1:8001", said["grpc"]).replace("127.0.0.1:8000", said["http"])
            _run({"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language] + [text], first_steps)
        finally:
            server.terminate()


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.mark == "budget"], ids=str)
def test_budgets_are_budgets(block: Block, tmp_path: Path) -> None:
    (tmp_path / "budget.yaml").write_text(block.text, encoding="utf-8")
    profile = ["percodec", "profile", str(tmp_path / "none"), "synthetic://road", "--budget", str(tmp_path / "budget.yaml")]
    done = subprocess.run(profile, capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment())
    assert "none" in done.stderr, done.stderr  # the budget was read, and then there was no such bundle


def test_every_block_is_judged() -> None:
    assert {b.language for b in BLOCKS if b.mark == "run"} == {"sh", "python"}
    unjudged = [str(b) for b in BLOCKS if b.mark is None and b.language not in ("sh", "", "text")]
    assert not unjudged, "mark it: <!-- test: run -->"


@cache
def _commands() -> dict[str, cli.Command]:
    return {command.name: command for command in cli._commands()[0]}


def _parser(name: str) -> argparse.ArgumentParser:
    assert name in _commands(), f"there is no percodec {name}"
    return cli.parser_of(_commands()[name])


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*(_options(choice) for choice in action.choices.values()))
    return found


@cache
def _options_of_script(path: Path) -> set[str]:
    """Options that a script, or a module of its folder that it imports, adds to a parser."""
    assert path.is_file(), path
    found = set()
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            found |= {a.value for a in node.args if isinstance(a, ast.Constant) and str(a.value).startswith("-")}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            beside = [path.with_name(f"{name}.py") for name in names]
            found = found.union(*(_options_of_script(other) for other in beside if other.is_file()))
    return found


def _given(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if OPTION.fullmatch(word.split("=")[0])}


def _check_percodec(words: list[str]) -> None:
    try:
        _parser(words[0]).parse_args(words[1:])
    except UsageError as error:
        pytest.fail(str(error))


def _check_make(words: list[str]) -> None:
    rules = _text(ROOT / "Makefile")
    for target in [word for word in words if "=" not in word]:
        assert re.search(rf"^{re.escape(target)}:", rules, re.MULTILINE), f"there is no make {target}"


def _check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert words[1] in ("venv", "pytest", "colcon"), words
        return
    unknown = _given(words[1:]) - _options_of_script(ROOT / words[0])
    assert not unknown, f"{words[0]} has no {', '.join(sorted(unknown))}"


def _check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    extras = set(re.findall(r"^(\w+) = \[", _text(ROOT / "pyproject.toml").split("[project.optional-dependencies]")[1], re.MULTILINE))
    for word in words[1:]:
        if word in ("onnxruntime", "numpy<2"):  # what ROS's own numpy goes with
            continue
        if wanted := re.fullmatch(r"\.\[([\w,]+)\]", word):
            assert set(wanted[1].split(",")) <= extras, word
        elif not word.startswith("-") and word != ".":
            assert (ROOT / word).is_file(), word


def _check_cmake(words: list[str]) -> None:
    known = _text(ROOT / "cmake" / "CMakeLists.txt")
    for word in words:
        if setting := re.match(r"-D(PERCODEC_\w+)=", word):
            assert f"option({setting[1]} " in known, word
    if "-S" in words:
        assert (ROOT / words[words.index("-S") + 1] / "CMakeLists.txt").is_file()


def _check_paths(words: list[str]) -> None:
    for word in words:
        assert word.startswith("-") or (ROOT / word.split("::")[0]).exists(), word


def _check_ros(words: list[str]) -> None:
    """Launch files and their arguments, and nodes by their names; what else ROS takes is ROS's."""
    if words[:2] == ["launch", "percodec_ros"]:
        given = dict(word.split(":=", 1) for word in words[3:])
        assert list(launched(ROS / "launch" / words[2], ROS, **given))
    elif words[0] in ("param", "lifecycle"):
        assert words[2].rpartition("/")[2] in {path.name.partition(".")[0] for path in (ROS / "config").iterdir()}
        assert words[0] == "lifecycle" or words[3] in (ROS / "config" / "encode.param.yaml").read_text(encoding="utf-8")
    else:
        assert words[0] in ("bag", "run", "topic"), words


def _check_source(words: list[str]) -> None:
    """`source install/setup.bash && COMMAND`."""
    assert words[0].endswith(("setup.bash", "activate")), words
    if "&&" in words:
        CHECKS[words[2]](words[3:])


def _check_nothing(words: list[str]) -> None:
    """Judged elsewhere, with its arguments: Polygraphy in tests/export, ctest and cpack in tests/native."""


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "percodec": _check_percodec,
    "make": _check_make,
    "python": _check_python,
    "python3": _check_python,
    "pip": _check_pip,
    "cmake": _check_cmake,
    "pytest": _check_paths,
    "ruff": lambda words: _check_paths(words[1:]),
    ".ci/run": _check_paths,
    "mypy": _check_paths,
    "lint-imports": _check_paths,
    "polygraphy": _check_nothing,
    "ros2": _check_ros,
    "source": _check_source,
    "ctest": _check_nothing,
    "cpack": _check_nothing,
}


@pytest.mark.parametrize("line", LINES)
def test_commands_have_these_arguments(line: str) -> None:
    first, *words = shlex.split(line, comments=True)
    tool = first if first in CHECKS else first.rpartition("/")[2]
    assert tool in CHECKS, f"nothing here can judge {tool!r}"
    CHECKS[tool](words)


@pytest.mark.parametrize("line", NAMED)
def test_commands_in_the_text_exist(line: str) -> None:
    first, *words = shlex.split(line)
    if first == "python":
        _check_python(words)
    elif re.fullmatch(r"[a-z]+", words[0]):
        unknown = _given(words[1:]) - _options(_parser(words[0]))
        assert not unknown, f"percodec {words[0]} has no {', '.join(sorted(unknown))}"


def test_options_in_the_text_exist() -> None:
    known = set().union(*(_options(_parser(name)) for name in _commands()))
    known = known.union(*(_options_of_script(path) for path in (ROOT / "benchmarks").glob("*.py")))
    for page in PAGES:
        prose = TABLE.sub("", FENCE.sub("", _text(page)))
        unknown = set(re.findall(r"`(--[a-z][\w-]*)", prose)) - known - FOREIGN
        assert not unknown, f"{_name(page)}: {', '.join(sorted(unknown))}"


def test_every_command_is_shown() -> None:
    shown = "\n".join(b.text for b in BLOCKS if b.page in GUIDES)
    assert not [name for name in _commands() if f"percodec {name}" not in shown]


def test_the_readme_is_short_and_the_guides_are_there() -> None:
    assert len(_text(ROOT / "README.md").splitlines()) <= 200
    assert {_name(page) for page in PAGES} >= GUIDES
    (loop,) = [b.text for b in BLOCKS if b.page == "README.md" and b.language == "python"]
    assert len([line for line in loop.splitlines() if line]) <= 10


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", _text(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *SPECS], ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(FENCE.sub("", _text(page))):
        if "://" in match["target"]:
            continue
        target = page.parent / match["target"] if match["target"] else page
        assert target.exists(), f"{_name(page)}: {match['target']}"
        if match["anchor"]:
            assert match["anchor"] in _anchors(target), f"{_name(page)}: {match[0]}"


def test_paths_in_the_text_exist() -> None:
    for page in PAGES:
        prose = FENCE.sub("", _text(page))
        for path in re.findall(r"`((?:sdk|runtime|export|benchmarks|tests|cmake|\.ci)/[\w./-]+)`", prose):
            assert (ROOT / path).exists(), f"{_name(page)}: {path}"


def test_tables_are_those_of_the_results() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
