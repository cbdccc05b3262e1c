"""Types of the C++ core (sdk/native/python/rans_module.cpp)."""

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.header import BytesLike

class Kernel(Enum):
    AUTOMATIC = 0
    SCALAR = 1
    AVX2 = 2
    AVX512 = 3
    NEON = 4

STATUS_NAMES: tuple[str, ...]
HEADER_BYTES: int
VERSION: int
MAX_LANES: int

# version, profile, lanes, stream_id, counter, frame_id, timestamp_ns, table_hash, payload_bytes, latent_crc
_Fields = tuple[int, int, int, int, int, int, int, int, int, int]

def kernel_supported(kernel: Kernel) -> bool: ...
def crc32c(data: BytesLike, crc: int = 0) -> int: ...
def parse_header(packet: BytesLike) -> tuple[int, _Fields]: ...
def latent_statistics(symbols: NDArray[np.uint8], counts: NDArray[np.uint32]) -> None: ...
def latent_statistics_below(symbols: NDArray[np.uint8], borders: NDArray[np.uint16], counts: NDArray[np.uint32]) -> None: ...

# Of the bytes of an entropy model; ValueError where they are none, or the shape cannot be.
def coder_of(model: bytes, height: int, width: int) -> LatentCoder: ...

class LatentCoder:
    def __init__(
        self, cdf: NDArray[np.uint16], height: int, width: int, profile: int, table_hash: int, contexts: bytes = b"", rows: int = 1
    ) -> None: ...
    @property
    def packet_bound(self) -> int: ...
    def encode(
        self,
        symbols: NDArray[np.uint8],
        scratch: NDArray[np.uint8],
        stream_id: int,
        counter: int,
        frame_id: int,
        timestamp_ns: int,
        lanes: int,
        kernel: Kernel = ...,
    ) -> bytes | int: ...
    def decode(self, packet: BytesLike, symbols: NDArray[np.uint8], kernel: Kernel = ...) -> tuple[int, _Fields]: ...
