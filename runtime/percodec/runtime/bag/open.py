"""From a path to a bag that can be read: an .mcap file, a rosbag2 folder, a .db3 file, a ROS 1 .bag."""

from __future__ import annotations

from pathlib import Path

from percodec.runtime.bag.mcap_files import McapFiles
from percodec.runtime.bag.rosbags_files import RosbagsFiles
from percodec.sdk.errors import BagError, reason
from percodec.sdk.files import read_file
from percodec.sdk.yaml_text import read_yaml

Bag = McapFiles | RosbagsFiles

KNOWN = "give a bag: .mcap, a rosbag2 folder, .db3, or a ROS 1 .bag"


def open_bag(path: Path) -> Bag:
    """Raises `BagError` for anything that is no bag, `BackendError` without the libraries."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise BagError(f"{path} is no file; {KNOWN}" if path.exists() else f"{path} does not exist; {KNOWN}")
    if path.suffix == ".bag":
        return RosbagsFiles(path, "ros1")
    if path.suffix == ".db3":
        return RosbagsFiles(path, "sqlite3")
    return McapFiles([path])


def _folder(path: Path) -> Bag:
    try:
        information = read_yaml(read_file(path / "metadata.yaml", 16 << 20).decode("utf-8"))["rosbag2_bagfile_information"]
        storage, names = str(information["storage_identifier"]), [Path(str(name)).name for name in information["relative_file_paths"]]
        packed = str(information.get("compression_mode") or "none").lower() != "none"
    except FileNotFoundError as error:
        raise BagError(f"{path} has no metadata.yaml; {KNOWN} (`ros2 bag reindex` writes a lost one)") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BagError(f"{path / 'metadata.yaml'} is not that of a bag ({reason(error)})") from error
    files = [path / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise BagError(f"{path} lacks {', '.join(missing) or 'any file'}, which its metadata.yaml names; copy the whole bag")
    if storage == "mcap" and not packed:
        return McapFiles(files)
    if storage not in ("mcap", "sqlite3"):
        raise BagError(f"{path} is stored as {storage[:40]!r}; {KNOWN}")
    return RosbagsFiles(path, storage)


__all__ = ["KNOWN", "Bag", "open_bag"]
