"""Pure functions from bytes to bytes: no I/O, no clock, no logging.

Reading order: `model` (what is stored), `wire` (msgpack and zstd with bounds), `rope` (values that share bytes),
`delta` (how one value follows from another), `header` (a checkpoint without its values), `envelope` (what stands around
every record), `event` (one entry of a stream), `segment` (runs of events), `head` (the mutable record's value).
"""
