"""Making stores smaller while they are used: policy (what stays), rewrite (dropping history), upkeep (sealing, removing
what is superseded), background (upkeep in the writer's process).
"""

from foldpoint.compaction.background import Background, Upkeep, upkeep_at
from foldpoint.compaction.policy import DropAll, DropRuns, KeepLast, Policy
from foldpoint.compaction.rewrite import copy_thread, rewrite_thread
from foldpoint.compaction.upkeep import CompactionReport, compact, upkeep

__all__ = [
    "Background",
    "CompactionReport",
    "DropAll",
    "DropRuns",
    "KeepLast",
    "Policy",
    "Upkeep",
    "compact",
    "copy_thread",
    "rewrite_thread",
    "upkeep",
    "upkeep_at",
]
