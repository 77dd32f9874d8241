"""The steps of a run once it is prepared: its files are opened, its stages computed, its results concluded."""

import dataclasses
import json
import shlex

from grid.devices.greeting import who_is_there
from grid.report.terminal import summary
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.margins import Margins
from grid.results.recommend import recommend
from grid.results.target import Target
from grid.run.files import RunFiles
from grid.run.job import Job
from grid.run.live_results import LiveResults
from grid.run.options import repeating_command, saved
from grid.run.progress import Progress
from grid.run.recorder import Recorder, run_context
from grid.run.saved_command import FILE
from grid.scheduling.listener import Listeners
from grid.scheduling.outcome import RunOutcome
from grid.secrets import masked
from grid.storage.disk import needed_mb
from grid.storage.runs import run_folder, share_run
from model.files import write_atomically

EXIT_OK, EXIT_INCOMPLETE, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def open_run(job: Job, name: str) -> Recorder:
    """Make the folder of a run and its MLflow run; raises InputError where MLflow's store cannot be used."""
    job.say(f"plan       {job.described[0]}\n           {job.estimate}")
    folder = run_folder(job.storage, name)
    files = RunFiles(folder, job.plan, run_context(job.plan, job.pack, name, repeating_command(job.options)))
    recorder = Recorder(files, job.store, job.pack, job.options.tracking_uri, job.say)
    write_atomically(folder / FILE, json.dumps(saved(job.options, name), indent=1))
    write_atomically(folder / "plan.txt", "\n".join(job.described) + "\n")
    files.save()
    share_run(folder, job.storage, job.store.remote)
    job.say(f"run        {folder}\nMLflow     {recorder.ui_command}")
    return recorder


def compute(job: Job, recorder: Recorder) -> RunOutcome:
    """Compute what the store lacks on Ray, which is started again where it died."""
    outcome = RunOutcome({})
    progress = Progress(job.plan, job.store, job.console, job.costs, job.trials)
    live = LiveResults(recorder.files, job.store, recorder.record_later, job.say, recorder.open_later)
    if not progress.to_do:
        return outcome
    for text in who_is_there(job.context.devices):
        job.say(f"device     {text}")
    from grid.scheduling.tune import cluster, run_plan  # imports Ray

    try:
        with progress:
            for starts_left in range(job.resources.retries, -1, -1):
                with cluster(job.resources, [one.label for one in job.context.devices]) as dashboard:
                    job.say(f"dashboard  {dashboard.how_to_open()}\nmetrics    {' '.join(dashboard.metrics_urls)}")
                    outcome = run_plan(job.plan, job.context, job.resources, Listeners(progress, live))
                if not outcome.ray_died:
                    break
                job.say("Ray died" + ("; it is started again" if starts_left else ""))
    except KeyboardInterrupt:
        return dataclasses.replace(outcome, interrupted=True)
    # Tune takes Ctrl-C as the end of its work and returns as if all were well.
    left = [node for node in job.to_do() if node not in outcome.failures]
    return dataclasses.replace(outcome, interrupted=bool(left) and not outcome.stopped)


def conclude(job: Job, recorder: Recorder, outcome: RunOutcome) -> int:
    """Write and print the results, the recommendation and what is left to do; returns the exit status."""
    folder, name = recorder.files.folder, recorder.files.name
    resume = f"Finished stages are kept. Continue with: python runner.py --resume {name}{_place(job)}"
    try:
        recorder.files.failures = outcome.failures
        evidence = write_results(recorder, job.target, job.margins)
        share_run(folder, job.storage, job.store.remote)
    except OSError as error:
        reason = outcome.stopped or f"{folder} cannot be written to ({error})"
        job.say(f"STOPPED: {reason}. {_left_over(job)} {resume}")
        return EXIT_INCOMPLETE
    rows = evidence.rows
    recommendation = recommend(rows, job.target, evidence)
    job.say(summary(rows, recommendation, folder, evidence.measures.headline))
    model = job.options.register
    if model and recommendation.refusal:
        job.say(f"not registered: {recommendation.refusal}")
    elif model and not outcome.interrupted and not recorder.problem:
        shipped = next(row for row in rows if row["cell"] == recommendation.ships)
        job.say(f"registered {recorder.register(shipped, model)}")
    if outcome.stopped:
        job.say(f"STOPPED: {outcome.stopped}. {_left_over(job)}")
    if recorder.problem:
        job.say(f"MLflow lacks results. Write them with: python runner.py --sync {name}{_place(job)}")
    bad = [row for row in rows if row["status"] not in ("ok", "excluded")]
    if outcome.interrupted or bad:
        job.say(resume)
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if bad or recorder.problem else EXIT_OK


def write_results(recorder: Recorder, target: Target, margins: Margins) -> Evidence:
    """Write what a run has come to, from the store alone: cells to MLflow, then the pages, which go there as well."""
    files = recorder.files
    files.save()
    rows = recorder.write_cells()
    files.save()  # with the MLflow run of each cell
    pages, evidence = files.write(rows, recorder.store, target, margins)
    recorder.close(rows, pages)
    return evidence


def _place(job: Job) -> str:
    """The options that say where this run is, for commands that are shown."""
    storage, uri = job.options.storage, job.options.tracking_uri
    where = f" --storage {shlex.quote(masked(storage))}" if storage != "results" else ""
    return where + (f" --tracking-uri {shlex.quote(masked(uri))}" if uri else "")


def _left_over(job: Job) -> str:
    to_do = len(job.to_do())
    return f"{to_do} stages are left, about {needed_mb(job.store, to_do):.0f} MB."
