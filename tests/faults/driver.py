"""``python -m tests.faults.driver ARGUMENTS``: the runner, with a line in ``attempts.txt`` for every stage computed."""

import sys
from functools import partial
from typing import Any

import pytest

import runner
from grid.planning.plan import Node
from grid.scheduling import profiler
from grid.scheduling import tune as schedule
from grid.scheduling.profiler import Profiler
from grid.stages import run as trial
from grid.stages.work import Context
from tests.faults.ailing import ailing_stage_trial, noted


class NotingProfiler(Profiler):
    """The profiling actor, with the same lines."""

    def run(self, node: Node, context: Context) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trial, "_compute", noted(trial._compute, context.storage, {}))
            return super().run(node, context)


if __name__ == "__main__":
    schedule.stage_trial = partial(ailing_stage_trial, ill={})
    profiler.Profiler = NotingProfiler
    sys.exit(runner.main())
