"""A log with a key: whatever is done to it afterwards is found, and named with the frame."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from percodec.sdk import Bundle, LogError, LogProof, LogWriter, SegmentedLogWriter, SegmentLimits, mcap, read_log, verify_log
from percodec.sdk.cli import main
from percodec.sdk.log import read_log_key
from percodec.sdk.log.proof import PROOF, PROOF_BYTES, Prover
from percodec.sdk.log.segments import segment_paths
from percodec.sdk.log.whole import whole_log

Packet = Callable[[int], bytes]
KEY, COUNT = bytes(range(32)), 12


@pytest.fixture
def path(tmp_path: Path, tiny: Bundle, packet: Packet) -> Path:
    with LogWriter(tmp_path / "log.mcap", tiny, key=KEY) as log:
        for k in range(COUNT):
            log.append(packet(k), 100 + k, 1_000_000 * k)
    return tmp_path / "log.mcap"


class Parts:
    """A log taken apart: `head`, pairs of a message and its proof, and `end`: the closing Metadata with its proof, and the summary."""

    def __init__(self, data: bytes) -> None:
        records, at = [], len(mcap.MAGIC)
        while at < len(data) - len(mcap.MAGIC):
            opcode, length = mcap.PREFIX.unpack_from(data, at)
            records.append((opcode, data[at : at + mcap.PREFIX.size + length]))
            at += mcap.PREFIX.size + length
        first = next(k for k, (opcode, _) in enumerate(records) if opcode == mcap.MESSAGE)
        last = max(k for k, (opcode, _) in enumerate(records) if opcode == mcap.MESSAGE)
        self.head = mcap.MAGIC + b"".join(data for _, data in records[:first])
        self.pairs = [(records[k][1], records[k + 1][1]) for k in range(first, last + 1, 2)]
        self.end = b"".join(data for _, data in records[last + 2 :]) + mcap.MAGIC

    def joined(self) -> bytes:
        return self.head + b"".join(a + b for a, b in self.pairs) + self.end


def changed(path: Path, change: Callable[[Parts], object]) -> LogProof:
    """What is found after `change`; what it returns, if bytes, is the whole file."""
    parts = Parts(path.read_bytes())
    made = change(parts)
    path.write_bytes(made if isinstance(made, bytes) else parts.joined())
    return verify_log(path, KEY)


def test_an_untouched_log_is_proved_and_reads_as_any(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = verify_log(path, KEY)
    assert (proof.records, proof.first_frame, proof.last_frame, proof.whole, proof.findings) == (COUNT, 0, COUNT - 1, True, [])
    log = read_log(path)
    assert [r.frame_id for r in log] == list(range(COUNT))
    assert (log.damaged, log.truncated, log.complaint()) == (0, False, "")
    assert Parts(path.read_bytes()).joined() == path.read_bytes()
    reader = pytest.importorskip("mcap.reader", reason="an independent reader, not a dependency")
    with path.open("rb") as file:
        assert len(list(reader.make_reader(file, validate_crcs=True).iter_messages())) == COUNT


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def alter(parts: Parts) -> None:
    parts.pairs[5] = (flip(parts.pairs[5][0], 60), parts.pairs[5][1])


def alter_time(parts: Parts) -> None:
    parts.pairs[5] = (flip(parts.pairs[5][0], mcap.PREFIX.size + 8), parts.pairs[5][1])


def alter_length(parts: Parts) -> None:
    parts.pairs[5] = (flip(parts.pairs[5][0], 2), parts.pairs[5][1])


def remove_proof(parts: Parts) -> None:
    parts.pairs[5] = (parts.pairs[5][0], b"")


def remove(parts: Parts) -> None:
    del parts.pairs[5]


def remove_several(parts: Parts) -> None:
    del parts.pairs[5:9]


def remove_first(parts: Parts) -> None:
    del parts.pairs[0]


def remove_last(parts: Parts) -> None:
    del parts.pairs[-1]


def repeat(parts: Parts) -> None:
    parts.pairs.insert(7, parts.pairs[5])


def swap(parts: Parts) -> None:
    parts.pairs[5], parts.pairs[6] = parts.pairs[6], parts.pairs[5]


def insert(parts: Parts) -> None:
    parts.pairs.insert(6, (parts.pairs[5][0], parts.pairs[9][1]))


def insert_metadata(parts: Parts) -> None:
    parts.pairs.insert(6, (mcap.metadata_record("percodec", {"bundle_digest": "00" * 32}), b""))


def insert_chunk(parts: Parts) -> None:
    parts.pairs.insert(6, (mcap.record(mcap.CHUNK, b"\0" * 60), b""))


def renumber(parts: Parts) -> None:
    del parts.pairs[5]
    for k in range(5, len(parts.pairs)):
        message, proof = parts.pairs[k]
        parts.pairs[k] = (message[:11] + k.to_bytes(4, "little") + message[15:], proof)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (alter, r"record 5 was altered after frame 4"),
        (alter_time, r"record 5 was altered after frame 4"),
        (alter_length, r"record 5 was altered after frame 4"),
        (remove_proof, r"record 5 was altered after frame 4"),
        (remove, r"record 5 is missing after frame 4"),
        (remove_several, r"records 5 to 8 are missing after frame 4"),
        (remove_first, r"record 0 is missing at the beginning"),
        (remove_last, r"record 11 is missing after frame 10"),
        (repeat, r"frame 5 is there twice, again after frame 6"),
        (swap, r"record 5 is missing after frame 4\nframe 5 was moved, it stands after frame 6"),
        (insert, r"a record was put in after frame 5: its proof does not fit, it calls itself frame 5"),
        (insert_metadata, r"a record of kind 12 at byte \d+ was put in or altered after frame 5"),
        (insert_chunk, r"a record of kind 6 at byte \d+ was put in or altered after frame 5"),
        (renumber, r"record 5 was altered after frame 4: its proof does not fit, it calls itself frame 6"),
    ],
)
def test_what_was_done_to_a_log_is_named_with_its_frame(path: Path, change: Callable[[Parts], object], said: str) -> None:
    proof = changed(path, change)
    assert re.search(said, "\n".join(proof.findings)), proof.findings
    assert proof.closed
    assert not proof.whole


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.long)])
def test_every_byte_of_a_log_is_proved(path: Path, step: int) -> None:
    """No bit can be flipped anywhere without a finding or an error."""
    whole = path.read_bytes()
    for at in range(0, len(whole), step):
        path.write_bytes(flip(whole, at))
        with contextlib.suppress(LogError):
            assert not verify_log(path, KEY).whole, f"byte {at}"


def test_a_log_that_is_cut_anywhere_is_proved_up_to_its_last_whole_record(path: Path) -> None:
    whole = path.read_bytes()
    parts = Parts(whole)
    ends = [len(parts.head)]
    for message, proof in parts.pairs:
        ends.append(ends[-1] + len(message) + len(proof))
    for at in [*range(len(parts.head), len(whole), 97), *ends, *(end - PROOF_BYTES for end in ends[1:]), len(whole) - 1]:
        path.write_bytes(whole[:at])
        found = verify_log(path, KEY)
        assert not found.whole, at
        assert found.records == sum(end <= at for end in ends[1:]), at
        if at <= ends[-1]:
            assert (found.findings, found.closed) == ([], False), at
            last = f" after frame {found.records - 1}" if found.records else ""
            assert f"nothing tells what followed{last}" in found.cut_off


def test_what_follows_the_end_counts_too(path: Path) -> None:
    assert "after it" in changed(path, lambda parts: parts.joined() + b"\0").findings[0]
    path.write_bytes(path.read_bytes()[:-1])

    def other_times(parts: Parts) -> None:
        at = parts.end.rindex(mcap.PREFIX.pack(mcap.FOOTER, 20))
        parts.end = parts.end[: at - 30] + b"\7" + parts.end[at - 29 :]

    assert "summary" in changed(path, other_times).findings[0]


def test_another_log_of_the_same_key_does_not_pass(path: Path, tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    with LogWriter(tmp_path / "other.mcap", tiny, key=KEY) as log:
        for k in range(COUNT):
            log.append(packet(k), k, 1_000_000 * k)
    other = Parts((tmp_path / "other.mcap").read_bytes())

    def exchange(parts: Parts) -> None:
        parts.pairs[5] = other.pairs[5]

    assert changed(path, exchange).findings == ["record 5 was altered after frame 4: its proof does not fit, it calls itself frame 5"]


def test_without_the_key_no_proof_can_be_made(path: Path) -> None:
    def forge(parts: Parts) -> None:
        prover = Prover(b"\1" * 32, parts.head[:-PROOF_BYTES])
        parts.head = parts.head[:-PROOF_BYTES] + prover.head()
        parts.pairs = [(message, prover.record(k, message)) for k, (message, _) in enumerate(parts.pairs)]

    proof = changed(path, forge)
    assert proof.records == 0
    assert "its beginning was altered" in proof.findings[0]


def test_proofs_that_were_left_out_are_missed(path: Path) -> None:
    def strip(parts: Parts) -> bytes:
        return parts.head[:-PROOF_BYTES] + b"".join(message for message, _ in parts.pairs) + parts.end

    assert "holds none" in changed(path, strip).findings[0]


@pytest.mark.parametrize("key", [b"\1" * 32, KEY + b"\0"])
def test_another_key_is_refused(path: Path, key: bytes) -> None:
    with pytest.raises(LogError, match="was written with the key"):
        verify_log(path, key)


def test_a_log_without_a_key_is_refused(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    with LogWriter(tmp_path / "a.mcap", tiny) as log:
        log.append(packet(0), 0, 0)
    with pytest.raises(LogError, match="without a key"):
        verify_log(tmp_path / "a.mcap", KEY)


@pytest.fixture
def segments(tmp_path: Path, tiny: Bundle, packet: Packet) -> Path:
    with SegmentedLogWriter(tmp_path / "log", tiny, SegmentLimits(4096), live=True, key=KEY) as log:
        for k in range(60):
            log.append(packet(k), k, 1_000_000 * k)
    assert log.segments > 4
    return tmp_path / "log"


def test_segments_are_proved_together(segments: Path) -> None:
    proof = verify_log(segments, KEY)
    assert (proof.records, proof.last_frame, proof.whole) == (60, 59, True)
    assert proof.segments == list(range(len(segment_paths(segments))))
    one = verify_log(segment_paths(segments)[1], KEY)
    assert (one.whole, one.segments) == (True, [1])


@pytest.mark.parametrize("gone", ["first", "middle", "last", "end of one", "swapped names", "one twice"])
def test_segments_that_are_not_there_are_missed(segments: Path, gone: str) -> None:
    paths = segment_paths(segments)
    said = {"first": "segment 0 is missing at the beginning", "middle": r"segment 2 is missing after frame \d+"}.get(gone, "")
    if gone == "first":
        paths[0].unlink()
        assert verify_log(segments, KEY, from_segment=1).whole
    elif gone == "middle":
        paths[2].unlink()
    elif gone == "last":
        paths[-1].unlink()
    elif gone == "end of one":
        paths[1].write_bytes(paths[1].read_bytes()[:-700])
        said = r"000001.mcap: was never closed, or was cut off: nothing tells what followed after frame \d+"
    elif gone == "swapped names":
        data = [path.read_bytes() for path in paths[:2]]
        paths[0].write_bytes(data[1])
        paths[1].write_bytes(data[0])
        assert verify_log(segments, KEY).whole  # their heads say where they belong, not their names
        return
    else:
        (segments / "000001-again.mcap").write_bytes(paths[1].read_bytes())
        said = "segment 1, which is there twice"
    proof = verify_log(segments, KEY)
    assert not proof.whole
    if gone == "last":
        assert f"segment {len(paths) - 2} was not the last, and none follows after frame" in proof.cut_off
    else:
        assert re.search(said, proof.findings[0]), proof.findings


_KILLED = """
import sys
from percodec.sdk import Bundle, LogWriter, PacketCodec
bundle = Bundle.open(sys.argv[1])
codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
log = LogWriter(sys.argv[2], bundle, key=bytes(range(32)))
for k in range(10**6):
    log.append(codec.encode(bundle.selftest().symbols[0], k, k), k, k)
    print(k, flush=True)
"""


def test_the_log_of_a_killed_writer_is_proved_up_to_its_last_record(tmp_path: Path, pristine: Path) -> None:
    path = tmp_path / "killed.mcap"
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(pristine), str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout if line.strip().isdigit())])
    proof = verify_log(path, KEY)
    assert proof.findings == []
    assert proof.records > acknowledged
    assert proof.last_frame == proof.records - 1
    assert f"nothing tells what followed after frame {proof.last_frame}" in proof.cut_off


def test_the_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "log.key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    words = ["verify-log", str(path), "--log-key", str(key)]
    assert main(words) == 0
    assert "12 records, frames 0 to 11" in capsys.readouterr().out
    whole = path.read_bytes()
    changed(path, alter)
    assert main([*words, "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["findings"] == ["record 5 was altered after frame 4: its proof does not fit"]
    assert "record 5 was altered" in err
    path.write_bytes(whole[:-900])
    assert main(words) == 1
    assert "never closed, or was cut off" in capsys.readouterr().err
    assert main([*words, "--allow-open"]) == 0


@pytest.mark.parametrize(("size", "mode", "said"), [(31, 0o600, "31 bytes"), (4097, 0o600, "more than 4096"), (32, 0o640, "chmod 600")])
def test_keys_that_are_none(tmp_path: Path, size: int, mode: int, said: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    path.chmod(mode)
    with pytest.raises(LogError, match=said):
        read_log_key(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LogError, match="not a regular file"):
        read_log_key(tmp_path / "fifo")
    with pytest.raises(LogError, match="does not exist"):
        read_log_key(tmp_path / "absent")


def test_the_format_is_as_it_is_written_down(path: Path) -> None:
    """From the words of `log.proof` alone."""
    parts = Parts(path.read_bytes())
    head, proof = parts.head[:-PROOF_BYTES], parts.head[-PROOF_BYTES:]
    assert proof[:9] == bytes([PROOF, 32, 0, 0, 0, 0, 0, 0, 0])
    k = hmac.new(KEY, b"percodec-log 1\0" + head, hashlib.sha256).digest()
    assert proof[9:] == hmac.new(k, b"head", hashlib.sha256).digest()
    for place, (message, proof) in enumerate(parts.pairs):
        assert proof[9:] == hmac.new(k, b"record" + place.to_bytes(8, "little") + message, hashlib.sha256).digest()
    metadata = read_log(path).metadata
    assert metadata["proof_key"] == hashlib.sha256(b"percodec-log-key\0" + KEY).hexdigest()[:16]


def test_an_archives_copy_proves_nothing_and_says_so(path: Path) -> None:
    """As it writes one: the same packets under the same metadata, and whose they are."""
    log = read_log(path)
    records = [(record.sequence, record.timestamp_ns, record.packet) for record in log]
    path.write_bytes(whole_log({**log.metadata, "vehicle": "v1"}, records)[0])
    proof = verify_log(path, KEY)
    assert not proof.whole
    assert proof.records == 0
    assert "archives and other tools leave them out; check what the vehicle wrote" in proof.findings[0]
