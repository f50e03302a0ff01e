"""Foldpoint beside other savers: `python -m benchmarks`, or `make bench`, which installs the others first.

Read in this order: `job` (what a workload says), `workloads`, `places` and `postgres` (where savers keep their data),
`savers` (who is measured), `meter` (how a call is measured), `cell` (one saver on one workload, in a process of its
own), `results` (figures of many cells), `claims` (what Foldpoint promises), `report` and `plots` (for people),
`__main__` (the command line).
"""
