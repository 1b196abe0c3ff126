"""A load as data: when requests come, what they ask, and what the service must hold. Reads and checks the files.

A scenario is one small TOML file in `scenarios/`; every fault in it is one sentence that names the field.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from serving.demo.questions import WITHOUT_PICTURE, Kind
from serving.demo.scenes import MAX_PRODUCTS
from serving.demo.words import Language  # noqa: TC001 - msgspec reads the annotations

FOLDER = Path(__file__).parent / "scenarios"

Latency = Literal["ttft_s", "itl_s", "e2e_s", "lateness_s"]
Share = Literal["errors", "wrong", "changed", "memory_growth", "engine_memory_growth"]
OF_A_RUN = frozenset({"changed", "memory_growth", "engine_memory_growth"})
"""What a single step of a run does not show."""


class ScenarioError(Exception):
    """The scenario cannot be run; one line says what to change."""


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Phase(Struct, frozen=True):
    """A time of constant mean rate; arrivals in it are Poisson."""

    lasts_s: float
    per_s: float
    """Requests a second; 0 is a pause."""
    counted: bool = False
    """Whether there are exactly `lasts_s * per_s`, at random times: a Poisson process, given how many came of it.

    Else their number varies as well: by 3 % of 1,000.
    """


class OutputLength(Struct, frozen=True):
    """One length of the mix of `max_tokens`."""

    tokens: int
    share: float = 1.0


class Traffic(Struct, frozen=True):
    """Requests of one kind. What the answer is follows from the picture and the question."""

    name: str
    share: float = 1.0
    """Of all requests, in proportion to the other traffics."""
    kinds: tuple[Kind, ...] = ("caption", "product", "colour", "pattern", "count")
    languages: tuple[Language, ...] = ("en", "zh")
    products: int = 1
    """Products in a picture."""
    pictures: int = 200
    """Different pictures; they are drawn before the load begins."""
    questions_per_picture: int = 1
    popularity: float = 0.0
    """Exponent of Zipf's law over the questions: 0 asks all equally often, 1 a few very often."""
    photo_scale: int = 1
    """Each side of a picture is so many times as long as the catalogue's, with a camera's noise from 2 on."""
    cacheable: bool = False
    """Whether a repeated question is the same request. If not, each has a `seed` of its own, so no cache answers it."""
    streamed: float = 0.5
    """Share of the requests that stream."""
    earlier_turns: tuple[float, ...] = (1.0,)
    """Lengths of prompts: the weight of conversations with 0, 1, 2, … earlier questions about the picture."""
    max_tokens: tuple[OutputLength, ...] = (OutputLength(96),)
    service_tier: str = ""
    """`flex` makes it bulk work for the gateway; empty: the field is not sent."""


class Objective(Struct, frozen=True):
    """A figure that must not be exceeded."""

    of: Latency | Share
    most: float
    """Seconds, or a share of the requests (0.01 is one in a hundred)."""
    percentile: float = 0
    """Of latencies only: 50, 95, 99, …"""
    traffic: str = ""
    """Only of this traffic; empty: of all together."""
    times_unloaded: float = 0
    """Of a ramp's latencies: so many times the one without load (lower quartile) counts where that is more."""

    @property
    def title(self) -> str:
        """How reports call it."""
        whose = f" of {self.traffic}" if self.traffic else ""
        return f"{self.of} P{self.percentile:g}{whose}" if self.percentile else f"{self.of}{whose}"


class Ramp(Struct, frozen=True):
    """How the highest arrival rate is found that meets the objectives; see search.py."""

    first_per_s: float = 1.0
    """Where feeling begins; before it, the unloaded latency is measured at half of it."""
    unloaded_s: float = 10.0
    feeling_s: float = 5.0
    """Length of a short step, each twice as fast as the one before, until an objective is missed."""
    factor: float = 1.15
    """From one whole step to the next where no objective has been missed yet."""
    within: float = 0.04
    """Bisection ends when the bracket is so narrow, as a share of the rate."""
    step_s: float = 15.0
    least_requests: int = 100
    """A whole step lasts until so many are planned, as a P95 of 20 requests is their worst."""
    most_per_s: float = 10_000.0
    patience: int = 4
    """Steps that are asked again because something else on the machine disturbed them."""


class Scenario(Struct, frozen=True):
    """A load test."""

    title: str
    traffic: tuple[Traffic, ...]
    phases: tuple[Phase, ...] = ()
    ramp: Ramp | None = None
    settle_s: float = 3.0
    """Requests planned in the first seconds of each step are sent and checked, but their times do not count."""
    seed: int = 1
    slo: tuple[Objective, ...] = ()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What every run must hold, where the file says nothing else, and then the file's own."""
        named = {(objective.of, objective.traffic) for objective in self.slo}
        return (*(each for each in EVERY_RUN if (each.of, each.traffic) not in named), *self.slo)


EVERY_RUN = (
    Objective("errors", 0.001),
    # The demo checkpoint gets one or two in a hundred single products wrong; a mix-up would show in `changed`.
    Objective("wrong", 0.05),
    # Asked again alone, a wrong answer must be the same: else the load made it. In bf16 a batch may flip one in 1,000.
    Objective("changed", 0.005),
    # The generator itself: beyond that its own lateness, not the service, is what the latencies show.
    Objective("lateness_s", 0.1, 99),
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a run asks for in place of the file's values; None leaves them."""

    per_s: float | None = None
    """Mean rate over all phases, which keep their proportions."""
    lasts_s: float | None = None
    """The whole run, likewise."""


def names() -> list[str]:
    """List the scenarios of this repository."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str, changes: Changes | None = None) -> Scenario:
    """Read a scenario by its name or its file. Raises ScenarioError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ScenarioError(f"no scenario {name}: it is one of {', '.join(names())}, or a .toml file") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ScenarioError(f"{path}: {exc}") from exc
    try:
        return _changed(parse(table), changes or Changes())
    except ScenarioError as exc:
        raise ScenarioError(f"{path}: {exc}") from exc


def parse(table: dict[str, Any]) -> Scenario:
    """Check a scenario's tables. Raises ScenarioError."""
    try:
        scenario = msgspec.convert(table, Scenario)
    except msgspec.ValidationError as exc:
        raise ScenarioError(str(exc)) from exc
    for fault in _faults(scenario):
        raise ScenarioError(fault)
    return scenario


def dump(scenario: Scenario) -> dict[str, Any]:
    """Give the tables that `parse` takes: workers get the scenario from the master so."""
    plain: dict[str, Any] = msgspec.to_builtins(scenario)
    return {name: value for name, value in plain.items() if value is not None}


def _faults(scenario: Scenario) -> list[str]:
    found = []
    if bool(scenario.phases) == bool(scenario.ramp):
        found.append("give either phases or a ramp")
    if any(phase.lasts_s <= 0 or phase.per_s < 0 for phase in scenario.phases):
        found.append("phases last longer than 0 s, with at least 0 requests a second")
    if scenario.phases and not any(phase.per_s for phase in scenario.phases):
        found.append("no phase has any requests")
    if scenario.ramp and not (
        scenario.ramp.factor > 1 and 0 < scenario.ramp.within < 1 and scenario.ramp.first_per_s > 0
    ):
        found.append("a ramp has factor > 1, within between 0 and 1, first_per_s > 0")
    if not scenario.traffic:
        found.append("no traffic")
    known = {traffic.name for traffic in scenario.traffic}
    for traffic in scenario.traffic:
        found += [f"traffic {traffic.name}: {fault}" for fault in _traffic_faults(traffic)]
    for objective in scenario.slo:
        found += _objective_faults(objective, known, ramps=scenario.ramp is not None)
    return found


def _objective_faults(objective: Objective, known: set[str], *, ramps: bool) -> list[str]:
    of = objective.of
    rules = (
        (
            not objective.traffic or objective.traffic in known,
            f"an objective is about traffic {objective.traffic}, which there is not",
        ),
        (
            not objective.times_unloaded or (ramps and objective.percentile > 0),
            f"{of}: times_unloaded is for latencies of a ramp, which measures the unloaded ones",
        ),
        (
            of.endswith("_s") == (0 < objective.percentile < 100),  # noqa: PLR2004
            f"{of}: a latency has a percentile between 0 and 100, a share has none",
        ),
    )
    return [fault for holds, fault in rules if not holds]


def _traffic_faults(traffic: Traffic) -> list[str]:
    rules = (
        (traffic.share > 0, "share is more than 0"),
        (
            bool(traffic.kinds and traffic.languages and traffic.max_tokens),
            "kinds, languages, max_tokens are not empty",
        ),
        (not WITHOUT_PICTURE & set(traffic.kinds), "every question is about a picture"),
        (1 <= traffic.products <= MAX_PRODUCTS, f"a picture shows 1 to {MAX_PRODUCTS} products"),
        (traffic.pictures > 0 and traffic.questions_per_picture > 0, "there is at least one picture and one question"),
        (1 <= traffic.photo_scale <= 16, "photo_scale is 1 to 16"),  # noqa: PLR2004
        (0 <= traffic.streamed <= 1, "streamed is a share"),
        (traffic.popularity >= 0, "popularity is at least 0"),
        (sum(traffic.earlier_turns) > 0 and min(traffic.earlier_turns) >= 0, "earlier_turns are weights"),
    )
    return [fault for holds, fault in rules if not holds]


def _changed(scenario: Scenario, changes: Changes) -> Scenario:
    if scenario.ramp:
        if changes.lasts_s is not None:
            raise ScenarioError("a ramp ends when it has found the capacity: leave the duration out")
        ramp = msgspec.structs.replace(scenario.ramp, first_per_s=changes.per_s or scenario.ramp.first_per_s)
        return msgspec.structs.replace(scenario, ramp=ramp)
    lasts_s = sum(phase.lasts_s for phase in scenario.phases)
    per_s = sum(phase.lasts_s * phase.per_s for phase in scenario.phases) / lasts_s
    longer = (changes.lasts_s or lasts_s) / lasts_s
    faster = (changes.per_s or per_s) / per_s
    phases = tuple(
        Phase(phase.lasts_s * longer, phase.per_s * faster, counted=phase.counted) for phase in scenario.phases
    )
    return msgspec.structs.replace(scenario, phases=phases)
