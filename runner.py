"""Quantization grid runner: which recipe gives my network the best accuracy, size and latency?"""

import io
import os
import sys
import traceback

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers set their own count; idle pools only fight over cores

from grid.run.actions import ACTIONS
from grid.run.job import prepare, show
from grid.run.options import GRID, Options, parse
from grid.run.steps import EXIT_INCOMPLETE, EXIT_INPUT, EXIT_INTERRUPTED, EXIT_OK, compute, conclude, open_run
from grid.secrets import masked
from grid.storage.run_lock import only_driver
from model.errors import InputError


def run(options: Options) -> int:
    """One grid from the search space to the report, or one of the other things to do; returns the exit status."""
    if options.action != GRID:
        return ACTIONS[options.action](options)
    job = prepare(options)
    if options.dry_run:
        show(job)
        return EXIT_OK
    with only_driver(job.storage, job.name, new=job.is_new) as name:
        recorder = open_run(job, name)
        outcome = compute(job, recorder)
        return conclude(job, recorder, outcome)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status (0 only if every planned cell is ok or excluded)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII alone
    try:
        return run(parse(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        print(error, file=sys.stderr)
        return EXIT_INPUT
    except Exception:  # a fault of ours, or of a library, whose message may hold the tracking URI
        print(masked(traceback.format_exc()), file=sys.stderr)
        return EXIT_INCOMPLETE
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, and the same command continues from there", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
