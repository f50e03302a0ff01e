"""Whether what was acknowledged is there, after nodes of a real Aerospike cluster were killed, paused and cut off.

`cluster` runs the nodes, `network` gives each its own network, `faults` breaks them, `workload` writes meanwhile,
`check` reads everything back, `run` is one run of that, `report` the table.
"""
