"""Labels of packets, in Parquet: a row a packet, joined by what names the packet and never by a file's name.

| column                     | type   |                                                                                            |
|----------------------------|--------|--------------------------------------------------------------------------------------------|
| `boot_id`                  | string | as the log's metadata have it                                                              |
| `stream_id`, `counter`     | whole  | as the packet's header has them                                                            |
| `vehicle`, `recording`     | string | each may be left out where the other columns name one packet; see `shards`                 |
| `labels`                   | binary | PNG of class ids, 255 for unknown, as large as the bundle's frame                          |
| `target`                   | whole  | or, instead of `labels`, a class                                                           |
| `split`                    | string | `train`, `val` or a name of your own; left out, every row is of `train`                    |

Other columns are ignored. `percodec dataset predict` and `percodec dataset encode --labels` write such files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.fleet.shards import Source
from percodec.export.fleet.store import Store
from percodec.sdk.errors import BackendError, DataError

LABELS, TARGET = "labels", "target"
_KEY = ("vehicle", "boot_id", "recording", "stream_id", "counter")
_SAMPLE = 1000


class Labels:
    """The rows of one split, `*.parquet` in a folder or one file. Travels to workers. `kind`: `labels` or `target`.

    Raises `DataError` where columns are missing or of another type, or the split has no rows.
    """

    def __init__(self, where: str, split: str = "train") -> None:
        self.where, self.split = where, split
        store = Store(where)
        names = store.names(".parquet")
        if not names:
            raise DataError(f"{where} holds no labels (*.parquet); export/README.md has their layout")
        self._places = [store.arrow(name) for name in names]
        schema = self._rows().schema
        self._columns = frozenset(schema.names)
        if missing := {"boot_id", "stream_id", "counter"} - self._columns:
            raise DataError(f"{where}: labels have no column {', '.join(sorted(missing))}; export/README.md has their layout")
        kinds = [name for name in (LABELS, TARGET) if name in self._columns]
        if not kinds:
            raise DataError(f"{where}: labels have neither a column {LABELS} (PNG) nor a column {TARGET} (class)")
        self.kind = kinds[0]
        types = {name: str(schema.field(name).type) for name in (*_KEY, self.kind, "split") if name in self._columns}
        wanted = {"boot_id": "string", "vehicle": "string", "recording": "string", "split": "string", LABELS: "binary"}
        for name, found in types.items():
            if (found.removeprefix("large_") if name in wanted else found.lstrip("u")[:3]) != wanted.get(name, "int"):
                raise DataError(f"{where}: column {name} is {found}, not {wanted.get(name, 'a whole number')}")
        if split != "train" and "split" not in self._columns:
            raise DataError(f"{where}: labels have no column split, so that all of them are of train and none of {split}")
        self.count: int = self._rows().count_rows(filter=self._in_split())
        if not self.count:
            raise DataError(f"{where}: no row of the labels is of split {split!r}")
        self._of: tuple[Source | None, dict[tuple[int, int], Any]] = (None, {})

    @property
    def names_recordings(self) -> bool:
        return "recording" in self._columns

    def of(self, source: Source) -> Mapping[tuple[int, int], Any]:
        """By (stream, counter): PNG bytes or a class. Raises `DataError` where two rows are of one packet."""
        if self._of[0] == source:
            return self._of[1]
        import pyarrow.dataset as arrow

        wanted = self._in_split()
        for name, value in zip(Source._fields, source, strict=True):
            if name in self._columns:
                here = arrow.field(name) == value
                wanted = here if wanted is None else wanted & here
        table = self._rows().to_table(columns=["stream_id", "counter", self.kind], filter=wanted)
        streams, counters, values = (table.column(k).to_pylist() for k in range(3))
        found = {(stream, counter): value for stream, counter, value in zip(streams, counters, values, strict=True) if value is not None}
        if len(found) < sum(value is not None for value in values):
            raise DataError(f"{self.where}: two rows are of one packet of boot {source.boot_id[:12]}; name its vehicle and recording too")
        self._of = (source, found)
        return found

    def sample(self, most: int = _SAMPLE) -> list[Any]:
        """Values of up to `most` rows, spread over all."""
        table = self._rows().to_table(columns=[self.kind], filter=self._in_split()) if self.kind == TARGET else None
        if table is not None:
            return list(table.column(0).to_pylist())
        found: list[Any] = []
        step, seen = max(1, self.count // most), 0
        for batch in self._rows().to_batches(columns=[self.kind], filter=self._in_split(), batch_size=256):
            for k in range(-seen % step, batch.num_rows, step):
                found.append(batch.column(0)[k].as_py())
            seen += batch.num_rows
        return [value for value in found[:most] if value is not None]

    def _in_split(self) -> Any:
        import pyarrow.dataset as arrow

        return arrow.field("split") == self.split if "split" in getattr(self, "_columns", ()) else None

    def _rows(self) -> Any:
        try:
            import pyarrow.dataset as arrow
        except ImportError as error:
            raise BackendError("labels in Parquet need pyarrow; install with: pip install 'percodec[fleet]'") from error
        try:
            return arrow.dataset([place for place, _ in self._places], format="parquet", filesystem=self._places[0][1])
        except (OSError, ValueError) as error:
            raise DataError(f"{self.where}: not labels in Parquet ({str(error)[:200]})") from error


def label_map(data: bytes, size: tuple[int, int], whose: str) -> NDArray[np.uint8]:
    """uint8 [H,W] from PNG. Raises `DataError` where it is none of this size."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("L", "P"):
                raise DataError(f"{whose}: its label map has mode {image.mode}, not L or P (class ids)")
            if (image.height, image.width) != size:
                raise DataError(f"{whose}: its label map is {image.width}x{image.height}, the bundle's frame {size[1]}x{size[0]}")
            return np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{whose}: its label map cannot be read ({error})") from error


def png_of(labels: NDArray[np.uint8]) -> bytes:
    """A label map uint8 [H,W] as PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(labels).save(out, "PNG", compress_level=3)
    return out.getvalue()


__all__ = ["LABELS", "TARGET", "Labels", "label_map", "png_of"]
