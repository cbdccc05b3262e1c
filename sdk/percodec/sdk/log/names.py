"""What a log's parts are called, and how large one may be."""

MAX_RECORD_BYTES = 16 << 20
OPENED, CLOSED = "percodec", "percodec.closed"  # Metadata
SCHEMA = "percodec.Packet"
TOPIC = "/percodec/packets"
ENCODING = "application/x-percodec-packet"
SEGMENTS = "packets"  # the folder for them in that of a run
