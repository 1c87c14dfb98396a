"""Forecast what more workers give, beside real runs, and write docs/scaling.md.

    make scaling            # needs pneumoniamnist.npz in ../shared/data, or DATA=<its folder>
    python tests/bench/scaling.py --data FOLDER [--executors local,ray] [--page-only]

The real searches are commands of the program, with folders of their own under outputs/scaling. One
that has come to its end is not run again. The others are simulated (`simulated.py`).
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import simulated
from omegaconf import OmegaConf
from run import machine
from simulated import Run, simulate
from sklearn.exceptions import ConvergenceWarning

from pneumonia import files
from pneumonia.config.search_space import find
from pneumonia.search.oracle import Oracle
from pneumonia.storage import journal, search_record
from pneumonia.storage.search_record import SearchRecord

ROOT = Path(__file__).parents[2]
ALL_EPOCHS = ("training.early_stopping=null", "tracking.log_models=none", "callbacks=none")
HEADS = ("experiment=quick", "augment=none", *ALL_EPOCHS)
NETWORKS = (
    "dataset=pneumonia_mnist", "model=cnn", "model.image_size=28", "model.blocks=2",
    'model.filters="choice(8, 16)"', 'dense.units="choice(16, 64, 256)"',
    'dense.dropout="choice(0.1, 0.3, 0.5)"',
    'optimizer.learning_rate="tag(log, interval(1e-4, 1e-2))"', *ALL_EPOCHS,
)  # fmt: skip
SAMPLE = ("tuner=random", "seed=0")
# So that no trial of another search computes features.
WARM = (*HEADS, "tuner=random", "tuner.max_epochs=1", "tuner.max_trials=15")
# What is simulated is made of these. A budget ends them, so that their states stay.
SAMPLES = {
    "heads": (*HEADS, *SAMPLE, "tuner.max_epochs=20", "tuner.max_trials=41", "budget.trials=40"),
    "networks": (
        *(*NETWORKS, *SAMPLE, "tuner.max_epochs=9", "tuner.max_trials=17", "budget.trials=16"),
    ),
}
# Of these the forecast is compared with what they took: other seeds, other tuners. Networks have a
# thread each, and run at the same time in processes alone.
ALONE = (*NETWORKS, "training.threads=1", "tuner.max_epochs=9")
REAL = {
    "hyperband": ("heads", (*HEADS, "tuner=hyperband", "tuner.max_epochs=20", "seed=1")),
    "asha": (
        "heads",
        (*HEADS, "tuner=asha", "tuner.max_epochs=20", "seed=1", "executor.in_order=false"),
    ),
    "random": ("networks", (*ALONE, "tuner=random", "seed=1", "tuner.max_trials=10")),
}
BESIDE = {
    "heads": (*HEADS, "tuner=random", "seed=2", "tuner.max_epochs=20", "tuner.max_trials=10"),
    "networks": (*ALONE, "tuner=random", "seed=2", "tuner.max_trials=4"),
}
COMMON = {"max_consecutive_failures": 3}
ORACLES = {
    "random": "keras_tuner.oracles.RandomSearchOracle",
    "hyperband": "keras_tuner.oracles.HyperbandOracle",
    "asha": "pneumonia.search.asha.AshaOracle",
    "bayesian": "keras_tuner.oracles.BayesianOptimizationOracle",
}
WORKERS = {"heads": (1, 10, 100), "networks": (1, 10, 100, 1000)}
# Trials for each worker, and for as many workers at least: cheap trials are more.
EACH, LEAST = {"random": 1, "hyperband": 2, "asha": 3}, 40
SEEDS, OF_MANY = 5, 1  # of the simulated searches; of those with more than 100 workers
BAYESIAN = 40  # trials, however many workers: of more, the simulation takes hours itself
MOMENTS = (2, 10, 60)  # minutes


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured on this machine, in seconds.

    Attributes:
        flush: An event of the journal on the disk, the median.
        startup: A process that imports what trains.
        transfer: By sample, a trial's state, written where the search is.
        propose: By tuner and number of trials before, to ask for the next trial.
    """

    flush: float
    startup: float
    transfer: Mapping[str, float]
    propose: Mapping[str, Mapping[int, float]]


def main() -> None:
    """Run what is missing, simulate the rest, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("DATA", str(ROOT / "../shared/data")))
    parser.add_argument("--folder", default=str(ROOT / "outputs" / "scaling"))
    parser.add_argument("--executors", default="local", help="of the real runs: local,ray")
    parser.add_argument("--page", default=str(ROOT / "docs" / "scaling.md"))
    parser.add_argument("--page-only", action="store_true", help="run no real search")
    options = parser.parse_args()
    data, folder = Path(options.data).resolve(), Path(options.folder).resolve()
    if not options.page_only:
        if not (data / "pneumoniamnist.npz").exists():
            sys.exit(f"There is no pneumoniamnist.npz in {data}: DATA=<folder> make scaling")
        folder.mkdir(parents=True, exist_ok=True)
        for name, words in searches(options.executors.split(",")).items():
            run(name, words, folder, data)
    Path(options.page).write_text(page(folder), encoding="utf-8")


def searches(executors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the words of all the real searches, by name."""
    found = {"warm": WARM, **SAMPLES}
    for executor in executors:
        for workers in (1, 2):
            own = (f"executor={executor}", f"executor.workers={workers}")
            named = {name: words for name, (_, words) in REAL.items()}
            named |= {f"beside-{kind}": words for kind, words in BESIDE.items()}
            for name, words in named.items():
                if executor == "ray" or not {*ALONE} <= {*words}:
                    found[f"{executor}-{workers}-{name}"] = (*words, *own)
    return found


def run(name: str, words: Sequence[str], folder: Path, data: Path) -> None:
    """Run one search to its end, unless it is there."""
    place = folder / "outputs" / name
    found = read(place)
    if found is not None and found.is_completed:
        return
    own = (f"dataset.manual_dir={data}", f"hydra.run.dir={place}")
    words = [f"resume={place}"] if found is not None else [*words, *own]
    began = time.monotonic()
    command = [sys.executable, "-m", "pneumonia", *words, "progress=false"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True, env=environment)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def read(place: Path) -> SearchRecord | None:
    """Return a real search, None where it has not begun."""
    return search_record.read(place) if (place / "journal.jsonl").exists() else None


def page(folder: Path) -> str:
    """Return the page, of the real searches that are there."""
    samples = {name: folder / "outputs" / name for name in SAMPLES}
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        costs = measure(samples, place)
        told = {name: [*forecasts(real, costs, place / name)] for name, real in samples.items()}
        compared = [*comparison(folder / "outputs", samples, costs, place)]
    return render(samples, costs, told, compared)


def render(
    samples: Mapping[str, Path],
    costs: Costs,
    told: Mapping[str, Sequence[Forecast]],
    compared: Sequence[Compared],
) -> str:
    """Return the page, of what was measured and simulated."""
    load = f"The load average was {os.getloadavg()[2]:.1f} meanwhile."
    lines = ["# From one worker to a thousand", "", f"{machine('scaling')} {load} {ABOUT}", ""]
    lines += ["## What to choose", "", *advice(samples, costs, told), ""]
    lines += ["## What it costs", "", *cost_table(samples, costs, told), ""]
    lines += ["## The forecast beside real runs", "", BESIDE_TEXT, "", *compared_table(compared)]
    for name, rows in told.items():
        lines += ["", f"## {TITLES[name]}", "", *forecast_table(samples[name], rows, costs)]
    return "\n".join(lines) + "\n"


ABOUT = (
    "Simulated are the trials alone: oracles, loop, scheduler and journal are the program's own, "
    "and what they take between two trials is measured while they do it. A trial's curve is the "
    "mean of those of the five real trials with the nearest hyperparameters, moved by an error "
    "drawn from those that this makes of real trials; it takes the time of one of the five. "
    "At its end its state is written where the search is, which does nothing else then; what Ray's "
    "calls and a network take is not counted. Workers do not slow each other down, none is lost, "
    "and the tracking, a process of its own, is left out. Random search has as many trials as "
    "workers, Hyperband twice, ASHA three times as many, of 40 workers at least; Bayesian search "
    "has 40. Each row is the median of five simulated searches of other seeds (of one with 1,000 "
    "workers), at its end their mean and standard deviation."
)
BESIDE_TEXT = (
    "Seconds of the trials alone, of networks with a thread each. The forecast is made of another "
    "search (random, another seed), of which the tables below are made too. How much longer an "
    "epoch takes here, two at a time on two processors or with another number of threads, and how "
    "long it takes until the first one can begin, was measured on a third search. `python "
    "tests/bench/scaling.py --executors local,ray` has the rows of Ray."
)
TITLES = {
    "heads": "Heads on stored features",
    "networks": "Networks that are trained whole",
}


def measure(samples: Mapping[str, Path], place: Path) -> Costs:
    """Measure what no journal tells."""
    with (place / "flushed").open("ab", buffering=0) as file:
        took = []
        for _ in range(100):
            began = time.perf_counter()
            file.write(b"x" * 500)
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    began = time.perf_counter()
    command = [sys.executable, "-c", "import pneumonia.training.trial"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    startup = time.perf_counter() - began
    transfer = {name: _write(_size(folder)) for name, folder in samples.items()}
    propose = {name: dict(_proposals(samples["networks"], name)) for name in ORACLES}
    return Costs(statistics.median(took), startup, transfer, propose)


def _proposals(real: Path, name: str) -> Iterator[tuple[int, float]]:
    """Yield how long it takes to ask for a trial and to tell its score, after how many others."""
    # Scores that mean nothing leave a Gaussian process without a length.
    warnings.simplefilter("ignore", ConvergenceWarning)
    space = find(OmegaConf.load(real / "config.yaml"))  # type: ignore[arg-type]
    objective, scores = simulated.landscape(real).record.objective, random.Random(0)
    at = (20, 50, 100) if name == "bayesian" else (100, 1000)
    for after in at:
        tuner = _tuner(name, after + 3, epochs=9)
        tuner |= {"num_initial_points": after} if name == "bayesian" else {}
        oracle, took = Oracle(space, tuner, objective), []
        for _ in range(after + 3):
            began = time.thread_time()
            proposal = oracle.propose()
            assert proposal is not None
            oracle.tell(proposal.trial_id, scores.random())
            took.append(time.thread_time() - began)
        yield after, statistics.median(took[after:])


def _tuner(name: str, trials: int, *, epochs: int, seed: int = 0) -> dict[str, Any]:
    section = {
        **COMMON,
        "seed": seed,
        "_target_": ORACLES[name],
        "max_epochs": epochs,
        "max_trials": trials,
    }
    if name == "hyperband":
        section |= {"factor": 3, "hyperband_iterations": 10**6}
    elif name == "asha":
        section |= {"factor": 3, "min_epochs": 1}
    elif name == "bayesian":
        section |= {"num_initial_points": None, "alpha": 1e-4, "beta": 2.6}
    return section


@dataclass(frozen=True, slots=True)
class Forecast:
    """Simulated searches that differ in their seeds."""

    tuner: str
    workers: int
    runs: Sequence[Run]

    @property
    def run(self) -> Run:
        """The one that takes the median time."""
        return sorted(self.runs, key=lambda run: run.makespan)[(len(self.runs) - 1) // 2]

    def seconds_to(self, score: float, sign: int) -> float:
        """Return the median of when they have a score as good as this."""
        return statistics.median_low(run.seconds_to(score, sign) for run in self.runs)


def forecasts(real: Path, costs: Costs, place: Path) -> Iterator[Forecast]:
    """Simulate every tuner with every number of workers, as completed."""
    pairs = [(name, workers) for name in ORACLES for workers in WORKERS[real.name]]
    jobs = [
        (name, workers, seed, real, costs, place / f"{name}{workers}-{seed}")
        for name, workers in pairs
        for seed in range(OF_MANY if workers > 100 else SEEDS)
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(forecast, *zip(*jobs, strict=True)))
    for pair in pairs:
        own = [run for job, run in zip(jobs, runs, strict=True) if job[:2] == pair]
        yield Forecast(*pair, own)


def forecast(name: str, workers: int, seed: int, real: Path, costs: Costs, place: Path) -> Run:
    """Simulate a tuner with some workers."""
    trials = EACH[name] * max(LEAST, workers) if name in EACH else BAYESIAN
    epochs = int(simulated.landscape(real).record.params["tuner.max_epochs"])
    tuner, began = _tuner(name, trials, epochs=epochs, seed=seed), time.monotonic()
    made = _simulate(real, place, tuner, workers, costs, in_order=False)
    took = time.monotonic() - began
    print(f"{real.name}, {name}, {workers} workers: simulated in {took:.0f} s", flush=True)
    return made


def _simulate(
    real: Path, place: Path, tuner: Mapping[str, Any], workers: int, costs: Costs, **more: Any
) -> Run:
    # What the disk takes is counted by its median: here other processes wait for it too.
    with mock.patch("os.fsync", return_value=None):
        return simulate(
            real, place, tuner=tuner, workers=workers, flush=costs.flush,
            transfer=costs.transfer[real.name], **{"startup": costs.startup, **more},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compared:
    """A real search and its forecast, in seconds of its trials."""

    executor: str
    workers: int
    tuner: str
    trials: tuple[int, int]
    epochs: tuple[int, int]
    seconds: tuple[float, float]


def comparison(
    outputs: Path, samples: Mapping[str, Path], costs: Costs, place: Path
) -> Iterator[Compared]:
    """Compare every real run that is there with its forecast."""
    for executor, workers, (name, (kind, _)) in product(("local", "ray"), (1, 2), REAL.items()):
        folder = outputs / f"{executor}-{workers}-{name}"
        beside = outputs / f"{executor}-{workers}-beside-{kind}"
        found = read(folder)
        if found is None or read(beside) is None or not found.is_completed:
            continue
        cfg = OmegaConf.load(folder / "config.yaml")
        made = _simulate(
            samples[kind], place / folder.name,
            OmegaConf.to_container(cfg.tuner, resolve=True),  # type: ignore[arg-type]
            workers, costs, startup=_startup(beside), in_order=cfg.executor.in_order,
            slowdown=_pace(beside) / _pace(samples[kind]),
        )  # fmt: skip
        yield Compared(
            executor, workers, f"{kind}: {name}", (len(found.trials), made.trials),
            (int(found.metrics["epochs"]), made.epochs),
            (found.metrics["seconds_trials"], made.makespan),
        )  # fmt: skip


def _startup(folder: Path) -> float:
    """Return the seconds of a real search until a worker can begin as it does later on."""
    events = [
        one for one in journal.read(folder) if one["kind"] in ("trial_started", "epoch_ended")
    ]
    waits = [one["seconds_elapsed"] for one in events if one["kind"] == "epoch_ended"][:1]
    return max(0.0, waits[0] - events[0]["seconds_elapsed"] - _pace(folder))


def _pace(folder: Path) -> float:
    """Return the median seconds of an epoch of a real search."""
    epochs = [one for _, spans in simulated.spans(folder).values() for one in spans]
    return statistics.median(epochs)


def cost_table(
    samples: Mapping[str, Path], costs: Costs, told: Mapping[str, Sequence[Forecast]]
) -> list[str]:
    """Return what was measured, each with the command that measures it."""
    rows = []
    for name, folder in samples.items():
        found = simulated.landscape(folder)
        images = next(row["size"] for row in found.record.first["datasets"])
        epochs = [one for past in found.past for one in past.epochs]
        beside = statistics.median(past.beside for past in found.past)
        command = f"`pneumonia {' '.join(SAMPLES[name])}`"
        epoch = statistics.median(epochs)
        rows += [
            (f"{name}: an epoch, median and range",
             f"{epoch:.3g} s ({min(epochs):.2g} to {max(epochs):.2g})", command),
            (f"{name}: an image of an epoch", f"{epoch / images * 1e6:.0f} µs", "the same"),
            (f"{name}: a trial beside its epochs", f"{beside:.2g} s", "the same"),
        ]  # fmt: skip
        size, seconds = _size(folder), costs.transfer[name]
        rows.append((f"{name}: a trial's state", f"{size / 1e6:.2g} MB", "the same"))
        rows.append(
            (f"{name}: a byte of it, written", f"{seconds / size * 1e9:.2g} ns", "the page")
        )
    first = next(one for one in told["networks"] if (one.tuner, one.workers) == ("random", 100))
    driven = first.run.driven * first.run.makespan / first.run.trials
    rows += [
        ("the search itself, a trial", f"{1000 * driven:.0f} ms", "the page"),
        ("an event of the journal on the disk", f"{1000 * costs.flush:.2g} ms", "the page"),
        ("a worker that starts", f"{costs.startup:.0f} s",
         "`python -c 'import pneumonia.training.trial'`"),
    ]  # fmt: skip
    for name, found_at in costs.propose.items():
        text = ", ".join(f"{_duration(took)} after {after}" for after, took in found_at.items())
        rows.append((f"{name}: to ask for a trial and tell its score", text, "the page"))
    return table(("what", "cost", "measured by"), rows)


def _size(folder: Path) -> int:
    """Return the bytes of a trial's state, the median."""
    return round(statistics.median(path.stat().st_size for path in folder.glob("trials/*.zip")))


def _write(size: int) -> float:
    """Return the seconds that it takes to write a state."""
    with tempfile.TemporaryDirectory() as folder:
        took, data = [], os.urandom(size)
        for number in range(5):
            began = time.perf_counter()
            with files.atomic(Path(folder) / str(number)) as part:
                part.write_bytes(data)
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"


def compared_table(rows: Sequence[Compared]) -> list[str]:
    """Return real runs beside their forecasts."""
    header = ("executor", "workers", "tuner", "trials", "epochs", "seconds", "forecast", "ratio")
    return table(
        header,
        [
            (
                one.executor, str(one.workers), one.tuner, _both(one.trials), _both(one.epochs),
                f"{one.seconds[0]:.1f}", f"{one.seconds[1]:.1f}",
                f"{one.seconds[1] / one.seconds[0]:.2f}",
            )
            for one in rows
        ],
    )  # fmt: skip


def _both(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} (forecast {pair[1]})"


def forecast_table(real: Path, rows: Sequence[Forecast], costs: Costs) -> list[str]:
    """Return every simulated search of one kind of network, and where each tuner stops scaling."""
    landscape = simulated.landscape(real)
    target, sign = goal(rows), landscape.sign
    header = ("tuner", "workers", "trials", "epochs", "all in", "workers busy", "search busy",
              f"to {target:.4f}", *(f"best after {minutes} min" for minutes in MOMENTS),
              "at the end")  # fmt: skip
    body = []
    for one in rows:
        run, moments = one.run, [60.0 * minutes for minutes in MOMENTS]
        body.append((
            one.tuner, f"{one.workers:,}", f"{run.trials:,}", f"{run.epochs:,}",
            _clock(run.makespan), f"{run.utilisation:.0%}", f"{run.driven:.0%}",
            _clock(one.seconds_to(target, sign)), *(_best(one, moment) for moment in moments),
            _told_ends(one),
        ))  # fmt: skip
    worst, spread = _fit(landscape)
    note = (
        f"By `{landscape.name}`; the goal is what random searches come to with one worker, on the "
        f"average. The curves are made of {len(landscape.past)} real ones; the errors of that have "
        f"a standard deviation of {spread:.2f} in logits ({worst:.2f} at the most)."
    )
    return [note, "", *table(header, body), "", *(f"- {line}" for line in ends(rows, costs))]


def goal(rows: Sequence[Forecast]) -> float:
    """Return what random searches of one worker come to, on the average."""
    first = next(one for one in rows if (one.tuner, one.workers) == ("random", 1))
    return statistics.fmean(_scores(first))


def _scores(one: Forecast) -> list[float]:
    return [run.best[-1][1] for run in one.runs]


def _told_ends(one: Forecast) -> str:
    found = _scores(one)
    spread = f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):.4f}{spread}"


def _fit(landscape: simulated.Landscape) -> tuple[float, float]:
    return max(map(abs, landscape.errors)), statistics.pstdev(landscape.errors)


def _best(one: Forecast, moment: float) -> str:
    if moment > one.run.makespan:
        return ""
    found = [[value for when, value in run.best if when <= moment] for run in one.runs]
    return f"{statistics.median_low(own[-1] for own in found):.4f}" if all(found) else "-"


def _clock(seconds: float) -> str:
    if math.isinf(seconds):
        return "never"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ends(rows: Sequence[Forecast], costs: Costs) -> Iterator[str]:
    """Yield for each tuner where half of the workers' time is lost, and what to."""
    for name in ORACLES:
        own = [one for one in rows if one.tuner == name]
        lost = next((one for one in own if one.run.utilisation < 0.5), None)
        if lost is None:
            most = own[-1].workers
            yield f"{name}: up to {most:,} workers more than half of their time is used."
        else:
            reason = why(lost, costs)
            yield f"{name}: with {lost.workers:,} workers half of their time is lost: {reason}."


def why(one: Forecast, costs: Costs) -> str:
    """Return what the workers of a simulated search wait for most."""
    run = one.run
    if run.driven > 0.5:
        each = run.driven * run.makespan / run.trials
        return (
            f"the search itself is busy for {run.driven:.0%} of the time, {_duration(each)} a trial"
        )
    if costs.startup > run.makespan / 4:
        return (
            f"all is over in {_clock(run.makespan)}, of which they start for {costs.startup:.0f} s"
        )
    if run.trials < 2 * one.workers:
        return f"there are {run.trials} trials for {one.workers:,} workers"
    return "few trials are left at its end, or at the ends of its rounds, and the others wait"


def advice(
    samples: Mapping[str, Path], costs: Costs, told: Mapping[str, Sequence[Forecast]]
) -> Iterator[str]:
    """Yield what follows from the numbers."""
    for name, real in samples.items():
        past = simulated.landscape(real).past
        trial = statistics.mean(one.beside + sum(one.epochs) for one in past)
        first = next(one for one in told[name] if (one.tuner, one.workers) == ("random", 100))
        each = first.run.driven * first.run.makespan / first.run.trials
        yield (
            f"- {name}: a whole trial takes {trial:.1f} s and the search {_duration(each)} for it, "
            f"so that it keeps about {trial / each:,.0f} workers busy, whatever proposes; a worker "
            f"that starts costs as much as {costs.startup / trial:.1f} trials."
        )
        for workers in WORKERS[name]:
            own = [one for one in told[name] if one.workers == workers]
            target, sign = goal(told[name]), simulated.landscape(real).sign
            found = sorted((one.seconds_to(target, sign), one.tuner) for one in own)
            text = ", ".join(f"{tuner} {_clock(when)}" for when, tuner in found if when < math.inf)
            many = "1 worker reaches" if workers == 1 else f"{workers:,} workers reach"
            yield f"  - {many} the goal by {text or 'no tuner'}."
    after, took = max(costs.propose["bayesian"].items())
    yield (
        "- Bayesian search asks a Gaussian process for one trial after the other: after "
        f"{after} trials {_duration(took)} each, and no more begin, whatever the workers."
    )
    yield (
        "- All the tables are of searches as completed (`executor.in_order=false`). In order, ASHA "
        "runs one or two trials at a time, Bayesian search one after its first random ones."
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = [header, [":---"] + ["---:"] * (len(header) - 1), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    main()
