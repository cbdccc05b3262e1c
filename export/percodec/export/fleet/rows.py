"""A shard as rows: the latents of its packets, what names each, and a Parquet file of what became of them, a part in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from percodec.export.fleet.alone import Alone
from percodec.export.fleet.losses import Losses
from percodec.export.fleet.shards import PacketKey, Shard, ShardReader
from percodec.export.fleet.store import Store
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import BackendError, PacketError
from percodec.sdk.types import Latent

_ROWS, _BYTES = 1000, 32 << 20  # of a row group
_KEY = {"vehicle": "string", "boot_id": "string", "recording": "string", "stream_id": "uint16", "counter": "uint32"}
NAMED = {**_KEY, "frame_id": "uint32", "timestamp_ns": "uint64"}


def latents_of(store: Store, shard: Shard, bundle: Bundle, losses: Losses) -> Iterator[tuple[dict[str, Any], Latent, bytes]]:
    """Columns `NAMED`, latent and packet, in order. What is left out is in `losses`. Raises `LogError`, `BundleError`, `DataError`."""
    codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    with ShardReader(store, shard, bundle) as reader:
        where = store.shown(shard.files[0])
        alone = Alone(bundle, codec, losses, where)
        for record in reader:
            if (found := alone(record.packet)) is None:
                continue
            header, packet = found
            try:
                symbols = codec.decode(packet)[1]
            except PacketError as error:
                losses.add("refused", 1, f"{where}: {error}")
                continue
            key = PacketKey(*reader.source, header.stream_id, header.counter)
            row = {**key._asdict(), "frame_id": record.frame_id, "timestamp_ns": record.timestamp_ns}
            yield row, Latent(symbols, record.frame_id, record.timestamp_ns), record.packet
        losses.merge(reader.losses)


class Rows:
    """A Parquet file of columns `NAMED` and `more` ({name: pyarrow's name of the type}). The same rows give the same bytes."""

    def __init__(self, path: Path, more: dict[str, str]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise BackendError("Parquet needs pyarrow; install with: pip install 'percodec[fleet]'") from error
        types = {**NAMED, **more}
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(name, _type(pyarrow, kind)) for name, kind in types.items()])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._held: list[dict[str, Any]] = []
        self._bytes = self.count = 0

    def add(self, row: dict[str, Any]) -> None:
        self._held.append(row)
        self.count += 1
        self._bytes += sum(len(value) for value in row.values() if isinstance(value, bytes))
        if len(self._held) >= _ROWS or self._bytes >= _BYTES:
            self._flush()

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._arrow.Table.from_pylist(self._held, schema=self._schema))
            self._held, self._bytes = [], 0


def _type(arrow: Any, kind: str) -> Any:
    inner = kind.removeprefix("list:")
    made = getattr(arrow, inner)()
    return arrow.list_(made) if inner != kind else made


__all__ = ["NAMED", "Rows", "latents_of"]
