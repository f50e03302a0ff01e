"""The store on an Aerospike cluster.

Reading order: `store` (the verbs), `client` (retries and batches), `agreement` (what keeps nodes that lost sight of one
another from taking writes), `config` (what a server's settings endanger), `errors`, `url`.
"""

from foldpoint.engine.aerospike.store import AerospikeStore

__all__ = ["AerospikeStore"]
