"""Making stores smaller while they are used.

What stays: `policy` (as a user says it), `selection` (of checkpoints), `activity` (of whole threads). For each stream
`choice` reads what that comes to, `plan` names the steps, `run` does them: `rewrite` drops history, `merge` and `clean`
lose nothing. `threads` does it for all streams of a thread, and `copying` copies one.

Where it happens: `background` keeps up what a writer writes; `job` goes over a whole store, with `workers` in several
processes, and `schedule` every so often. `sweep` removes what no head leads to.
"""

from foldpoint.compaction.archives import Archives
from foldpoint.compaction.background import Background, Upkeep, due_from, upkeep_at
from foldpoint.compaction.clean import over_after
from foldpoint.compaction.copying import copy_thread
from foldpoint.compaction.plan import Plan, plan
from foldpoint.compaction.policy import DropAll, DropRuns, KeepLast, Policies, Policy, Retention, ThreadRetention
from foldpoint.compaction.run import CompactionReport, run
from foldpoint.compaction.schedule import Schedule
from foldpoint.compaction.sweep import SweepReport, sweep
from foldpoint.compaction.threads import (
    compact,
    compact_thread,
    plans,
    rehearse,
    reseal_thread,
    rewrite_thread,
    upkeep,
)

__all__ = [
    "Archives",
    "Background",
    "CompactionReport",
    "DropAll",
    "DropRuns",
    "KeepLast",
    "Plan",
    "Policies",
    "Policy",
    "Retention",
    "Schedule",
    "SweepReport",
    "ThreadRetention",
    "Upkeep",
    "compact",
    "compact_thread",
    "copy_thread",
    "due_from",
    "over_after",
    "plan",
    "plans",
    "rehearse",
    "reseal_thread",
    "rewrite_thread",
    "run",
    "sweep",
    "upkeep",
    "upkeep_at",
]
