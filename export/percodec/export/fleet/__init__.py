"""Data of a fleet: packets in logs, in folders or in object stores, read as they lie there and never as pictures.

    a folder, s3://...  ->  shards  ->  records  ->  | PacketDataset     torch, to train on
                                                     | packet_source     Ray Data, for work of your own
                                                     | run_units         encode, predict, stats: a shard a time, on processes or on Ray

Which one should I use? `dataset.PacketDataset` to train; `percodec dataset` for what it does; `ray_source.read_packets` for the rest.
A shard is a log, or the files that an archive keeps of one segment. Nothing here needs torch but `dataset`, or Ray but `ray_source` and
`ray_workers`.
"""
