"""Measure this program beside others on the real data, and write docs/benchmarks.md.

    make bench          # needs pneumoniamnist.npz in ../shared/data, or DATA=<its folder>
    PYTHONPATH=.:tests/support python tests/bench/run.py --data FOLDER [--only study,ours,...]

Each contestant runs in a process of its own, one after the other; wall-clock seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watch import Watch, cpu_seconds

ROOT = Path(__file__).parents[2]
RIVALS = Path(__file__).with_name("rivals.py")
UNTRACKED = Path(__file__).with_name("untracked.py")
SEARCH = [
    "model=inception_v3", "model.weights=null", "model.pooling=avg", "model.image_size=150",
    "dense.units=\"choice(128, 256, 512, 1024)\"",
    "dense.dropout=\"choice(0.1, 0.2, 0.3, 0.4, 0.5)\"",
    "optimizer.learning_rate=\"choice(1e-4, 1e-3, 1e-2)\"",
    "tuner=hyperband", "tuner.max_epochs=20", "tuner.max_trials=30",
    "training.early_stopping=null",
]  # fmt: skip
MANY = [
    "model=efficientnet_lite0", "tuner=random", "tuner.max_trials=500", "tuner.max_epochs=2",
    "dense.units=128", "training.early_stopping=null", "tracking.log_models=best",
]  # fmt: skip
CROWD = [
    "dataset=image_folder", "model=efficientnet_lite0", "model.image_size=32",
    "model.layer=block4c_add", "tuner=random", "tuner.max_trials=2", "tuner.max_epochs=2",
    "dense.units=128",
]  # fmt: skip

TRAINED = {
    "efficientnet_lite0": [
        "model=efficientnet_lite0", "model.image_size=112", "model.layer=null",
        "model.trainable=block3a_expand_conv",
    ],
    "cnn": ["model=cnn", "model.blocks=2", "model.filters=32"],
}  # fmt: skip
TRAINING = [
    "augment=chest", "augment.views=online", "optimizer=adam", "optimizer.learning_rate=1e-4",
    "dense.units=256", "dense.dropout=0.3", "tuner.max_epochs=4", "training.early_stopping=null",
]  # fmt: skip

NETWORKS = [
    "model=cnn", "model.blocks=2", "model.filters=32", "tuner=random", "tuner.max_trials=16",
    "tuner.max_epochs=3", "dense.units=128", "training.early_stopping=null",
    "executor=ray", "executor.retries=0",
]  # fmt: skip


PARTS = "answers,extraction,ours,study,rivals,tracking,services,wide,training,many,crowd,workers"


@dataclass
class Run:
    """One run of our command: what it took, and the folder of its search."""

    seconds: float
    peak_mb: float
    first_trial: float
    folder: Path
    events: list[dict[str, Any]]
    memory: list[tuple[int, float]] = field(default_factory=list)
    cpu: float = 0.0  # processor seconds of its own process
    children_cpu: float = 0.0  # and of those that it started: the tracking


# With the processor seconds of the MLflow server and of PostgreSQL.
Sent = tuple[Run, float, float]


def main() -> None:
    """Run what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("DATA", str(ROOT / "../shared/data")))
    parser.add_argument("--only", default=PARTS)
    parser.add_argument("--page", default=str(ROOT / "docs/benchmarks.md"))
    options = parser.parse_args()
    data = Path(options.data).resolve()
    if not (data / "pneumoniamnist.npz").exists():
        sys.exit(f"There is no pneumoniamnist.npz in {data}: DATA=<folder> make bench")
    parts = options.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        page = Bench(data, Path(folder)).run(parts)
    print(page)
    if set(parts) >= {"ours", "study", "rivals"}:
        Path(options.page).write_text(page, encoding="utf-8")


class Bench:
    """Owns a folder for the runs, and collects the lines of the page."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.lines = ["# Benchmarks", "", f"{machine('bench')} Wall-clock seconds.", ""]

    def run(self, parts: list[str]) -> str:
        """Run the parts in an order in which they can build on each other."""
        for name in PARTS.split(","):
            if name == "ours" and name in parts:
                self.searches("study" in parts, "rivals" in parts)
            elif name in parts and name not in ("study", "rivals"):
                getattr(self, name)()
        return "\n".join(self.lines) + "\n"

    def answers(self) -> None:
        """Time what a user waits for before anything is computed."""
        rows = []
        for name, arguments in {
            "`pneumonia --help`": ["--help"],
            "`pneumonia --cfg job`": ["--cfg", "job"],
            "a mistake in the config": ["dense.units=many"],
        }.items():
            took = []
            for _ in range(5):
                began = time.monotonic()
                subprocess.run(
                    _command(arguments),
                    cwd=self.folder,
                    capture_output=True,
                    check=False,
                    env=_environment(),
                )
                took.append(time.monotonic() - began)
            rows.append((name, f"{statistics.median(took):.2f} s"))
        self.table("Answers (median of 5)", ("command", "time"), rows)

    def extraction(self) -> None:
        """Compare the rate of the extraction with that of matrix products."""
        peak, rates = self.rival("peak"), self.rival("extraction")
        operations = 1.85  # 10^9 per image, InceptionV3 to mixed7 at 150 pixels
        rows = []
        for name, rate in rates.items():
            best = peak["bfloat16" if name == "bfloat16" else "float32"]
            share = 100 * rate * operations / best
            rows.append((name, f"{rate:.0f}", f"{rate * operations:.0f}", f"{share:.0f} %"))
        self.table(
            "Extraction: InceptionV3 to mixed7, 150 x 150, batches of 128",
            ("", "images/s", "10⁹ operations/s", "share of the matrix-product peak"),
            rows,
        )
        self.lines += [
            f"Matrix products of 2048 x 2048: {peak['float32']:.0f} · 10⁹ operations/s in float32, "
            f"{peak['bfloat16']:.0f} in bfloat16.",
            "",
        ]

    def searches(self, with_study: bool, with_rivals: bool) -> None:
        """Run the same search cold and warm, beside the study's loop and two other programs."""
        cold = self.ours(SEARCH)
        warm = min((self.ours(SEARCH) for _ in range(2)), key=lambda run: run.seconds)
        two = self.ours([*SEARCH, "executor.workers=2"])
        per_trial = _epochs(cold.events)
        epochs = sum(per_trial)
        rows: list[tuple[str, ...]] = []
        if with_study:
            took = self.rival("study")["epoch_seconds"]
            name = f"the study's loop: {epochs} epochs, scaled from one of {took[-1]:.0f} s"
            rows.append((name, *_ratios(epochs * took[-1], cold, warm, digits=0), ""))
        if with_rivals:
            path = self.rival("features", str(cold.folder))["path"]
            for title, what in {"KerasTuner": "keras_tuner", "Optuna": "optuna"}.items():
                found = self.rival(what, path, json.dumps(per_trial))
                name = f"{title} on our cached features: {_counted(found)}"
                ratios = _ratios(found["seconds"], cold, warm)
                rows.append((name, *ratios, f"{found['peak_mb']:.0f}"))
        counted = _counted({"trials": len(per_trial), "epochs": epochs})
        ours = {"cold": cold, "warm": warm, "warm, two trials at a time": two}
        for title, run in ours.items():
            name = f"this program, {title}: {counted}, MLflow included"
            rows.append((name, *_ratios(run.seconds, cold, warm), f"{run.peak_mb:.0f}"))
        self.table(
            "A Hyperband search over the head of InceptionV3 on PneumoniaMNIST",
            ("", "seconds", "ratio to cold", "ratio to warm", "peak memory, MB"),
            rows,
        )
        self.lines += [
            "Ours is the whole command from start to end, with the evaluation on test. The "
            "study's loop augments and runs the frozen network in every epoch, with Dense(512) on "
            "the flattened features; the searches below it are over a head on averaged features, "
            "without augmentation. The network has random weights: the time is the same.",
            f"The first trial of the warm search ended {warm.first_trial:.1f} s after the command.",
            "",
        ]  # fmt: skip

    def tracking(self) -> None:
        """Tell what the tracking costs a search whose features are cached."""
        if not (self.folder / "outputs" / "features").exists():
            self.ours(SEARCH)
        took: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(3):
            for name, seconds in took.items():
                untracked = [str(UNTRACKED)] if name == "without" else None
                seconds.append(_searched(self.ours(SEARCH, program=untracked).events))
        with_it, without = (statistics.median(seconds) for seconds in took.values())
        self.table(
            "What the tracking costs: the warm search above, three times each way, in turn",
            ("", "seconds of the search (median)"),
            [
                ("with its 30 runs and models in MLflow", f"{with_it:.2f}"),
                ("with nothing sent to MLflow", f"{without:.2f}"),
                ("cost", f"{100 * (with_it / without - 1):.1f} %"),
            ],
        )

    def services(self) -> None:
        """Tell what the tracking costs `quick` with a server and a database, and what they do.

        They run on the same machine, and step back: elsewhere they would take nothing from it.
        """
        import services  # needs PostgreSQL

        if not services.has_postgres():
            self.lines += ["PostgreSQL is not on this machine: nothing is said of services.", ""]
            return
        sent, unsent = list[Sent](), list[Sent]()
        with services.postgres_and_mlflow(fsync="on", niceness=19) as (postgres, server):
            tracked = ["tracking=server", f"tracking.uri={server.uri}"]
            for _ in range(3):
                for runs, own, program in ((sent, tracked, None), (unsent, [], [str(UNTRACKED)])):
                    before = [sum(cpu_seconds(one.pid).values()) for one in (server, postgres)]
                    place = f"features.folder={tempfile.mkdtemp(dir=self.folder)}"
                    run = self.ours(["experiment=quick", place, *own], program=program)
                    after = [sum(cpu_seconds(one.pid).values()) for one in (server, postgres)]
                    runs.append((run, *map(operator.sub, after, before)))
        self._tell_of_services(sent, unsent)

    def _tell_of_services(self, *layouts: list[Sent]) -> None:
        names: dict[str, Callable[[Sent], float]] = {
            "the search, seconds": lambda one: _searched(one[0].events),
            "the whole command, seconds": lambda one: one[0].seconds,
            "processor seconds of the search's process": lambda one: one[0].cpu,
            "of its tracking process": lambda one: one[0].children_cpu,
            "of the MLflow server": lambda one: one[1],
            "of PostgreSQL": lambda one: one[2],
        }
        rows = []
        for place, (name, what) in enumerate(names.items()):
            medians = [statistics.median(map(what, runs)) for runs in layouts]
            told = [f"{value:.2f}" for value in medians]
            if place < 2:  # of the others there is nothing to compare
                told[0] += f" ({_more(*medians)})"
            rows.append((name, *told))
        self.table(
            "What a server on PostgreSQL costs, both on this machine: experiment=quick, in turn",
            ("median of 3", "with its 30 runs and classifiers sent", "with nothing sent"),
            rows,
        )
        size = max(path.stat().st_size for path in layouts[0][-1][0].folder.rglob("*.keras"))
        self.lines += [
            "The server and PostgreSQL run with the lowest priority; on another machine they would "
            "take nothing from the search. The tracking process imports MLflow for 2 s of its "
            f"time. A classifier has {size / 1e6:.1f} MB at the most.",
            "",
        ]

    def wide(self) -> None:
        """Time an epoch of a head on flattened features."""
        rows = []
        for name, what in {"stock Keras": "wide_keras", "this program": "wide_ours"}.items():
            rows.append((name, self.rival(what)["epoch_seconds"]))
        ratio = rows[0][1] / rows[1][1]
        limit = self.rival("wide_limit")
        self.table(
            "An epoch of Dense(512) on 4,708 x 37,632 features, RMSprop",
            ("", "seconds"),
            [(name, f"{seconds:.2f}") for name, seconds in rows] + [("ratio", f"{ratio:.2f}")],
        )
        self.lines += [
            f"What holds it: the optimizer's update moves five arrays of 77 MB in every step, "
            f"{limit['update_ms']:.1f} ms at {limit['update_gb_s']:.0f} GB/s, where a plain copy "
            f"reaches {limit['copy_gb_s']:.0f} GB/s; the two matrix products take "
            f"{limit['products_ms']:.1f} ms. Over 147 steps that is "
            f"{147 * (limit['update_ms'] + limit['products_ms']) / 1000:.1f} s.",
            "",
        ]

    def training(self) -> None:
        """Compare epochs of networks that train with those of `fit`, and with their least cost."""
        peak, cost = self.rival("peak")["float32"], self.rival("operations")["operations"]
        rows = []
        for network, overrides in TRAINED.items():
            fit = self.rival("fit", "", network)["epoch_seconds"]
            events = self.ours([*overrides, *TRAINING]).events
            ends = [event["time"] / 1000 for event in events if event["kind"] == "epoch_ended"]
            own = min(late - early for early, late in itertools.pairwise(ends))
            rows.append((network, f"{fit:.1f}", f"{own:.1f}", f"{fit / own:.2f}"))
        self.table(
            "An epoch of networks that train, on 4,708 images, augment=chest anew in every epoch",
            ("", "Keras' fit, s", "this program, s", "ratio"),
            rows,
        )
        self.lines += [
            f"What holds EfficientNet-Lite0, 112 pixels, from block3a: {cost:.2f} · 10⁹ operations "
            f"an image are {4708 * cost / peak:.1f} s an epoch at {peak:.0f} · 10⁹ a second, the "
            "rate of a product of matrices of 2048 x 2048.",
            "",
        ]

    def many(self) -> None:
        """Tell whether the cost of a trial grows with the number of trials before it."""
        run = self.ours(MANY)
        took = _trial_seconds(run.events)
        early, late = statistics.median(took[3:23]), statistics.median(took[-20:])
        after = [mb for trial, mb in run.memory if 20 <= trial < len(took)]
        growth = 100 * (after[-1] / after[0] - 1) if after else float("nan")
        self.table(
            "A random search of 500 trials, two epochs each",
            ("", ""),
            [
                ("median seconds of trials 4 to 23", f"{early:.3f}"),
                ("median seconds of the last 20 trials", f"{late:.3f}"),
                ("resident memory at trial 20, MB", f"{after[0]:.0f}" if after else "-"),
                ("resident memory at the last trial, MB", f"{after[-1]:.0f}" if after else "-"),
                ("growth of memory from trial 20 on", f"{growth:.1f} %"),
                ("resident memory at the end, after the report, MB", f"{run.memory[-1][1]:.0f}"),
                ("whole command, seconds", f"{run.seconds:.0f}"),
            ],
        )

    def crowd(self) -> None:
        """Tell what memory a folder of 100,000 images takes."""
        path = self.rival("folder", "", str(self.folder / "crowd"), "100000")["path"]
        run = self.ours([*CROWD, f"dataset.path={path}"], with_data=False)
        self.table(
            "100,000 image files",
            ("", ""),
            [
                ("peak memory, MB", f"{run.peak_mb:.0f}"),
                ("seconds to the end of the first trial", f"{run.first_trial:.0f}"),
            ],
        )

    def workers(self) -> None:
        """Compare the trials per minute of one worker and of two, with one thread and with two."""
        layouts = {(1, 1): [], (2, 1): [], (1, 2): []}
        for _ in range(2):  # in turn, as a machine is not always as fast
            for (workers, threads), rates in layouts.items():
                options = [f"executor.workers={workers}", f"training.threads={threads}"]
                rates.append(_rate(self.ours([*NETWORKS, *options]).events))
        best = {layout: max(rates) for layout, rates in layouts.items()}
        apart = self.rival("apart")["ratio"]
        rows = [
            (
                f"{workers} {'worker' if workers == 1 else 'workers'}",
                f"{threads}",
                f"{rate:.2f}",
                f"{best[2, 1] / rate:.2f}",
            )
            for (workers, threads), rate in best.items()
        ]
        self.table(
            "Trials at a time: executor=ray, a network from scratch on PneumoniaMNIST at 28 pixels",
            ("", "threads each", "trials per minute", "two workers of one thread: times as many"),
            rows,
        )
        self.lines += [
            "The better of two runs each, in turn; from the first epoch on, when the workers have "
            "begun. Trials of other numbers of threads come to other last digits. Two processes of "
            "a thread each that only multiply matrices, and share nothing, made "
            f"{apart:.2f} times as many products as one: so much is in this machine's two cores.",
            "",
        ]

    def ours(
        self, overrides: list[str], *, with_data: bool = True, program: list[str] | None = None
    ) -> Run:
        """Run our command, or a program that runs it, in the bench's folder."""
        before = set(self.folder.glob("outputs/*/*"))
        began, clock = time.time(), time.monotonic()
        arguments = [f"dataset.manual_dir={self.data}"] if with_data else []
        arguments += overrides
        process = subprocess.Popen(
            [sys.executable, *program, *arguments] if program else _command(arguments),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        watch = Watch(process.pid, self.folder, before)
        watch.start()
        _, error = process.communicate()
        seconds = time.monotonic() - clock
        watch.join()
        if process.returncode or watch.journal is None:
            sys.exit(f"{' '.join(overrides)} failed:\n{error.decode()}")
        events = [json.loads(line) for line in watch.journal.read_text().splitlines()]
        ended = next(e["time"] for e in events if e["kind"] == "trial_ended")
        own = watch.cpu.pop(process.pid, 0.0)
        return Run(
            seconds,
            watch.peak_mb,
            first_trial=ended / 1000 - began,
            folder=watch.journal.parent,
            events=events,
            memory=watch.memory,
            cpu=own,
            children_cpu=sum(watch.cpu.values()),
        )

    def rival(self, what: str, source: str = "", *rest: str) -> dict[str, Any]:
        """Run one of the others and return what it measured."""
        command = [
            sys.executable,
            str(RIVALS),
            what,
            source or str(self.data / "pneumoniamnist.npz"),
        ]
        process = subprocess.Popen(
            [*command, *rest],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        watch = Watch(process.pid, self.folder, set())
        watch.start()
        output, error = process.communicate()
        watch.join()
        if process.returncode:
            sys.exit(f"{what} failed:\n{error.decode()}")
        found: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
        return found | {"peak_mb": watch.peak_mb} if what in ("keras_tuner", "optuna") else found

    def table(self, title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        """Add a table to the page."""
        rule = [":---", *("---:" for _ in header[1:])]
        cells = [header, tuple(rule), *rows]
        self.lines += [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in cells), ""]


def _ratios(seconds: float, cold: Run, warm: Run, *, digits: int = 1) -> tuple[str, str, str]:
    numbers = (seconds, seconds / cold.seconds, seconds / warm.seconds)
    whole, to_cold, to_warm = (f"{number:,.{digits}f}" for number in numbers)
    return whole, to_cold, to_warm


def _more(seconds: float, than: float) -> str:
    return f"{100 * (seconds / than - 1):+.1f} %"


def _counted(found: dict[str, Any]) -> str:
    return f"{found['trials']} trials, {found['epochs']} epochs"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pneumonia", *arguments]


def _rate(events: list[dict[str, Any]]) -> float:
    """Return the trials per minute of trials with as many epochs each, from the first epoch on."""
    ends = [event["time"] for event in events if event["kind"] == "epoch_ended"]
    last = max(event["time"] for event in events if event["kind"] == "trial_ended")
    trials = sum(event["kind"] == "trial_ended" for event in events)
    # The first epochs of the trials that ran when the first one ended are not in the span.
    begun = [event for event in events if event["kind"] == "trial_started"]
    first = sum(event["time"] < min(ends) for event in begun)
    return 60_000 * trials * (1 - first / len(ends)) / (last - min(ends))


def _epochs(events: list[dict[str, Any]]) -> list[int]:
    counts: dict[str, int] = {}
    for event in events:
        if event["kind"] == "epoch_ended":
            counts[event["trial_id"]] = counts.get(event["trial_id"], 0) + 1
    return list(counts.values())


def _trial_seconds(events: list[dict[str, Any]]) -> list[float]:
    """Return the seconds from the end of one trial to the end of the next."""
    ends = [event["time"] / 1000 for event in events if event["kind"] == "trial_ended"]
    return [late - early for early, late in itertools.pairwise(ends)]


def _searched(events: list[dict[str, Any]]) -> float:
    """Return the seconds from the start of a search to its end, evaluation included."""
    first, last = (
        next(event["time"] for event in events if event["kind"] == kind)
        for kind in ("search_started", "search_ended")
    )
    return float(last - first) / 1000


def machine(target: str) -> str:
    """Say which target of make wrote a page, at which commit, and what it ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = answer.stdout.strip() or "unknown"
    return (
        f"Written by `make {target}` at commit {commit}, on {time.strftime('%Y-%m-%d')}: {model}, "
        f"{os.cpu_count()} processors, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}. No accelerator is used."
    )


if __name__ == "__main__":
    main()
