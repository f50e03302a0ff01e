"""The log of a stream in a store.

Reading order: `records` (what is asked of a store), `keys`, `io` (sealed records, and parts of large ones), `layout`
and `view` (what a head says, and what a process knows), `fold` (what events add up to), `reading`, `sealing`, `log`
(appending), `recovery` and `repair` (after a crash of the store), `history`, `engine`.

Stores: `memory` (the reference), `sqlite`, `aerospike`; `url` opens them.
"""
