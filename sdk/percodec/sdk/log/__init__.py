"""Packet logs: MCAP files that lose no acknowledged frame when the process is killed.

    LogWriter.append -> one complete Message record, one write() -> returns: that frame is in the file

Nothing is buffered in the process, so a kill loses at most the record being written; `read_log` opens such a file as it is. What the
kernel had not yet put on the disk is lost with the power; `sync="interval"` bounds that to about a second.
Any MCAP tool opens a log; the packets in it are those of BITSTREAM.md. Its records, in order:

    Header
    Metadata "percodec"         the bundle, `clock` ("monotonic" or "media": what timestamps count), and both clocks as the log was begun
    Schema, Channel
    Message                     one packet each; log time and publish time are the frame's timestamp, the sequence counts from 0
    Metadata "percodec.closed"  both clocks as it was closed, `records`, and `last` ("yes", or "no" where another segment follows)
    DataEnd, summary, Footer

A killed log ends after any of them. A log that is written with a key has proofs between them, see `proof`. "Both clocks": `monotonic_ns`
and `utc_ns`, see `percodec.sdk.clock`. Values are texts.

`read_log` also reads what other tools make of a log: its records in chunks, uncompressed or packed with zstd or lz4, beside other topics,
without a summary, in any order that MCAP allows, as long as the Metadata are kept. A folder of segments reads as one log: `segments`.
"""

from percodec.sdk.log.open import read_log
from percodec.sdk.log.proof import read_log_key
from percodec.sdk.log.reader import LogReader, LogRecord
from percodec.sdk.log.segments import SegmentedLogWriter, SegmentLimits
from percodec.sdk.log.verify import LogProof, verify_log
from percodec.sdk.log.writer import LoggedBundle, LogWriter

__all__ = [
    "LogProof",
    "LogReader",
    "LogRecord",
    "LogWriter",
    "LoggedBundle",
    "SegmentLimits",
    "SegmentedLogWriter",
    "read_log",
    "read_log_key",
    "verify_log",
]
