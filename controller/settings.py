"""Which settings are there, what do they mean, and which values can they take?

One frozen model a section, each default beside its unit and its reason; `docs/configuration.md` is generated from here.
A model checks its own fields. What several settings must have in common is checked in `config_rules.py`, and where the
values come from is the business of `config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from metrics.kpi import Kpi, with_limits


class Section(BaseModel):
    """What all sections share: frozen, nothing unknown, no NaN, and a string is never taken for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PlantSettings(Section):
    """The governed system and how it is reached."""

    kind: Literal["embedded", "http", "replay"] = Field(
        default="embedded",
        description="Which adapter governs: `embedded` needs nothing and runs in virtual time, `http` is a server, "
        "`replay` only observes what was recorded.",
    )
    url: str | None = Field(default=None, description="Base address of the server; needed by `http`, unused otherwise.")
    recording: str | None = Field(
        default=None,
        min_length=1,
        description="What `replay` observes: a CSV file, a telemetry store, `influxdb` or `influxdb:PLANT`.",
    )
    nodes: int = Field(
        default=50,
        ge=5,
        le=1_000_000,
        description="Nodes of the embedded cluster. Below 5 no node can be judged by its peers.",
        json_schema_extra={"unit": "nodes"},
    )
    clusters: int | None = Field(
        default=None,
        ge=1,
        description="Clusters of the embedded cluster, at least 3 nodes each. Not set: max(1, min(⌊N/5⌋, round √N)).",
        json_schema_extra={"unit": "clusters"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2**63 - 1,
        description="Seed of the embedded cluster: equal seeds give equal runs, bit for bit.",
    )
    allow_probes: bool | None = Field(
        default=None,
        description="Whether Phases II and III may commit probe transactions. Not set: yes on `embedded`, no "
        "elsewhere, because they move real tokens.",
    )
    allow_fault_injection: bool | None = Field(
        default=None,
        description="Whether Phase III may inject a dissonance to prove gravity gating. Not set: yes on `embedded`, no "
        "elsewhere, because it disturbs a real cluster for a while.",
    )
    deadline_s: float = Field(
        default=2.0,
        gt=0,
        le=3600,
        description="Total time that one call to the plant may take, however slowly it drips.",
        json_schema_extra={"unit": "s"},
    )
    connect_s: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="Total time for reaching the plant at the start: longer than a call, as it asks several things.",
        json_schema_extra={"unit": "s"},
    )
    unavailable_s: float = Field(
        default=10.0,
        gt=0,
        description="How long a plant may go without a new tick, or three of its own intervals where these are longer, "
        "before `iace run` gives it up (exit code 69) and `iace govern` begins to reconnect.",
        json_schema_extra={"unit": "s"},
    )
    probe_sender: str | None = Field(
        default=None,
        min_length=1,
        description="Account that pays for ledger probes. Not set: one that can afford them is chosen.",
    )
    token_file: Path | None = Field(
        default=None,
        strict=False,
        description="File that holds the bearer token for the server. The token itself stands in no configuration.",
    )

    @property
    def probes_allowed(self) -> bool:
        """`allow_probes`, decided."""
        return self.kind == "embedded" if self.allow_probes is None else self.allow_probes

    @property
    def fault_injection_allowed(self) -> bool:
        """`allow_fault_injection`, decided."""
        return self.kind == "embedded" if self.allow_fault_injection is None else self.allow_fault_injection


class ScheduleSettings(Section):
    """When the plant is observed, and for how long."""

    interval_s: float = Field(
        default=1.0,
        ge=0.001,
        le=3600,
        description="Time between two observations of a real-time plant; 1 s is the tick that the model's limits are "
        "made for. The embedded plant runs in virtual time.",
        json_schema_extra={"unit": "s"},
    )
    ticks: int = Field(
        default=300,
        ge=1,
        description="Length of the governing window of `iace run`: long enough for a fault, its isolation and a trial.",
        json_schema_extra={"unit": "ticks"},
    )
    warmup_ticks: int = Field(
        default=150,
        ge=1,
        description="How long Phase I waits for every KPI's window to fill: the slowest takes 60, plus transients.",
        json_schema_extra={"unit": "ticks"},
    )
    settle_max: int = Field(
        default=120,
        ge=0,
        description="Time that what is in flight gets at the end of the window, in which no new action starts.",
        json_schema_extra={"unit": "ticks"},
    )
    deadline_s: float = Field(
        default=3600.0,
        gt=0,
        description="Wall time after which `iace run` stops as inconclusive (exit code 61).",
        json_schema_extra={"unit": "s"},
    )
    report_s: float = Field(
        default=300.0,
        ge=0.01,
        le=1_000_000,
        description="How often `iace govern` writes its report and proposals.",
        json_schema_extra={"unit": "s"},
    )
    flush_s: float = Field(
        default=5.0,
        ge=0.01,
        le=1_000_000,
        description="How often `iace govern` brings buffered telemetry into its store, whatever the batches.",
        json_schema_extra={"unit": "s"},
    )
    housekeeping_s: float = Field(
        default=60.0,
        ge=0.01,
        le=1_000_000,
        description="How often `iace govern` sums up refused requests and sees to its journal's snapshots.",
        json_schema_extra={"unit": "s"},
    )
    persistence_ticks: int = Field(
        default=30,
        ge=1,
        description="Last ticks over which the final KPIs are judged: healthy clusters of 5 nodes breach limits for "
        "single ticks.",
        json_schema_extra={"unit": "ticks"},
    )


class KpiSettings(Section):
    """The limits of one KPI."""

    healthy: float | None = Field(default=None, description="Beyond it the KPI is unhealthy.")
    critical: float | None = Field(default=None, description="Beyond it the KPI is critical.")


class GravitySettings(Section):
    """The gravity field |g| of every node."""

    critical: float = Field(
        default=1.5,
        gt=0,
        description="|g| beyond which a node is a gravity well. None of 7 million healthy node-ticks exceeded 1.35.",
        json_schema_extra={"unit": "g0"},
    )
    unit: float = Field(
        default=0.40,
        gt=0,
        description="Base of g0, the unit in which |g| is measured; it grows with the spread that all nodes share.",
        json_schema_extra={"unit": "1"},
    )
    evidence_ticks: int = Field(
        default=20,
        ge=1,
        description="Trusted ticks of a node before it is judged: the span of the field's moving averages.",
        json_schema_extra={"unit": "ticks"},
    )


class IsolationSettings(Section):
    """Who may be isolated, when, and for how long. Every budget is counted after the action in question."""

    confirm_ticks: int = Field(
        default=3,
        ge=1,
        description="Ticks in a row beyond the critical gravity before a well is confirmed.",
        json_schema_extra={"unit": "ticks"},
    )
    cluster_fraction_max: float = Field(
        default=1 / 3,
        gt=0,
        lt=1,
        description="Share of a cluster that may be out, so that those that stay outvote the rest two to one.",
        json_schema_extra={"unit": "1"},
    )
    fraction_max: float = Field(
        default=0.30,
        gt=0,
        lt=1,
        description="Share of all nodes that may be out: with 25 of 50 out, those that stay pay 13 times as much.",
        json_schema_extra={"unit": "1"},
    )
    absolute_max: int | None = Field(
        default=None,
        ge=0,
        description="Number of nodes that may be out. Not set: only the shares hold.",
        json_schema_extra={"unit": "nodes"},
    )
    quorum: int = Field(
        default=3,
        ge=1,
        description="Active nodes that every cluster keeps: with fewer, no majority tells the good from the bad.",
        json_schema_extra={"unit": "nodes"},
    )
    evidence_nodes_min: int = Field(
        default=5,
        ge=1,
        description="Trusted nodes in a tick without which nobody is judged.",
        json_schema_extra={"unit": "nodes"},
    )
    rate_per_minute: float = Field(
        default=5.0,
        gt=0,
        description="Isolations a minute in the long run; at least `rate_share` of the nodes.",
        json_schema_extra={"unit": "1/min"},
    )
    burst: float = Field(
        default=5.0,
        ge=1,
        description="Isolations that may follow one another at once; at least `rate_share` of the nodes.",
        json_schema_extra={"unit": "nodes"},
    )
    rate_share: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="Share of the nodes that rate and burst are at least: while many bad nodes wait for their turn, "
        "they drag good ones along.",
        json_schema_extra={"unit": "1"},
    )
    verify_s: float = Field(
        default=10.0,
        gt=0,
        description="How long an action may stay unverified by the plant before it counts as failed.",
        json_schema_extra={"unit": "s"},
    )
    backoff_base_s: float = Field(
        default=60.0,
        gt=0,
        description="Least time out, multiplied by the number of offences.",
        json_schema_extra={"unit": "s"},
    )
    backoff_max_s: float = Field(
        default=3600.0, gt=0, description="Cap of the least time out.", json_schema_extra={"unit": "s"}
    )
    backoff_jitter: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share by which a back-off may be drawn longer, by node and offence, so that nodes that went out "
        "together do not come back together.",
        json_schema_extra={"unit": "1"},
    )
    forgive_s: float = Field(
        default=600.0,
        gt=0,
        description="Healthy time that takes one offence back.",
        json_schema_extra={"unit": "s"},
    )
    flap_offences: int = Field(
        default=6,
        ge=2,
        description="Isolations from which a node stays out until a person lets it in: one that comes back ill every "
        "time would go in and out for ever.",
        json_schema_extra={"unit": "isolations"},
    )
    ttl_s: float = Field(
        default=900.0,
        gt=0,
        le=100_000_000,
        description="Time limit of an isolation, renewed on evidence: a dead controller leaves nobody out for good. At "
        "least two minutes beyond the back-off, which could not be sat out otherwise.",
        json_schema_extra={"unit": "s"},
    )
    readmit_gravity: float = Field(
        default=0.75,
        gt=0,
        description="|g| below which an isolated node counts as clean: the 99th percentile of healthy nodes.",
        json_schema_extra={"unit": "g0"},
    )
    probation_ticks: int = Field(
        default=60,
        ge=1,
        description="Clean ticks before re-admission, and again before full trust: stealth looks clean at first.",
        json_schema_extra={"unit": "ticks"},
    )
    storm_fraction: float = Field(
        default=0.55,
        gt=0,
        lt=1,
        description="Share of the assessed nodes that look bad at once from which the sensors are suspected instead.",
        json_schema_extra={"unit": "1"},
    )
    storm_cooldown_s: float = Field(
        default=60.0,
        ge=0,
        description="Quiet time before SAFE_MODE is left by itself.",
        json_schema_extra={"unit": "s"},
    )
    doubt_ticks: int = Field(
        default=30,
        ge=1,
        description="Ticks of sensors contradicted by service before SAFE_MODE; until then isolations are only held.",
        json_schema_extra={"unit": "ticks"},
    )
    safe_mode_auto_clear: bool = Field(
        default=True, description="Whether SAFE_MODE is left by itself once its cause has gone."
    )


class HealingSettings(Section):
    """Trials of the cluster's control parameters: applied, measured, then kept or rolled back."""

    enabled: bool = Field(default=True, description="Whether parameters are tried at all.")
    auto_apply: bool | None = Field(
        default=None,
        description="Whether Phase IV applies its corrections itself. Not set: yes on `embedded`, no elsewhere.",
    )
    step: float = Field(
        default=1.5,
        gt=1,
        le=4,
        description="Factor of a fixed step, taken where a plant shows no phases and so no model can be made of it.",
        json_schema_extra={"unit": "1"},
    )
    trigger_ticks: int = Field(
        default=10,
        ge=1,
        description="Ticks of which more than half outside a limit ask for a trial, if the environment explains them.",
        json_schema_extra={"unit": "ticks"},
    )
    baseline_ticks: int = Field(
        default=10,
        ge=1,
        description="Window before a trial that it is compared with; short, because before a trial things change.",
        json_schema_extra={"unit": "ticks"},
    )
    settle_ticks: int = Field(
        default=10,
        ge=1,
        description="Ticks between applying and measuring, in which the transient passes.",
        json_schema_extra={"unit": "ticks"},
    )
    measure_ticks: int = Field(
        default=40,
        ge=2,
        description="Ticks over which a trial is measured, and again if inconclusive; J is then 7 % noise at 50 nodes.",
        json_schema_extra={"unit": "ticks"},
    )
    level: float = Field(
        default=0.05,
        gt=0,
        le=0.4,
        description="Probability with which noise alone may pass for an effect of a trial.",
        json_schema_extra={"unit": "1"},
    )
    holdoff_s: float = Field(
        default=60.0,
        ge=0,
        description="Quiet time after 1 % of the nodes or more went out or came back: KPIs do not speak of couplings.",
        json_schema_extra={"unit": "s"},
    )
    holdoff_model_s: float = Field(
        default=10.0,
        ge=0,
        description="The same where the identified environment, which does not count those nodes, explains the KPIs.",
        json_schema_extra={"unit": "s"},
    )
    suspect_s: float = Field(
        default=60.0,
        ge=0,
        description="How long single nodes that stand out, but are not confirmed, hold trials back.",
        json_schema_extra={"unit": "s"},
    )
    trials_max: int = Field(
        default=6,
        ge=1,
        description="Trials in a row without a healthy end after which none is made for a while.",
        json_schema_extra={"unit": "trials"},
    )
    backoff_base_s: float = Field(
        default=600.0,
        gt=0,
        description="For how long then; doubled each time in a row.",
        json_schema_extra={"unit": "s"},
    )
    backoff_max_s: float = Field(
        default=7200.0,
        gt=0,
        description="Cap of that back-off.",
        json_schema_extra={"unit": "s"},
    )
    burst: float = Field(
        default=10.0,
        ge=1,
        description="Trials that may be made at once.",
        json_schema_extra={"unit": "trials"},
    )
    per_hour: float = Field(
        default=30.0,
        gt=0,
        description="Trials an hour, at length.",
        json_schema_extra={"unit": "1/h"},
    )
    min_effect: float = Field(
        default=0.002,
        ge=0,
        description="Change of the constraint violation below which nothing counts as an effect.",
        json_schema_extra={"unit": "1"},
    )
    verify_s: float = Field(
        default=10.0,
        gt=0,
        description="How long a change may stay unverified by the plant before it counts as failed.",
        json_schema_extra={"unit": "s"},
    )
    supply_tolerance: float = Field(
        default=0.03,
        ge=0,
        description="Share by which the supply may differ from its start before α follows.",
        json_schema_extra={"unit": "1"},
    )
    alpha_step: float = Field(
        default=0.5,
        gt=0,
        le=2,
        description="Most that α changes at a time.",
        json_schema_extra={"unit": "1"},
    )
    alpha_every_s: float = Field(
        default=300.0,
        ge=0,
        description="Least time between two changes of α.",
        json_schema_extra={"unit": "s"},
    )
    early_gain: float = Field(
        default=0.005,
        gt=0,
        description="Fall of the tuner's objective, missed margins included, that a trial must promise while limits "
        "hold; divided by the trust in the model.",
        json_schema_extra={"unit": "1"},
    )
    improve_every_s: float = Field(
        default=120.0,
        ge=0,
        description="Least time from the start of a trial to one for mere saving; divided by the trust in the model.",
        json_schema_extra={"unit": "s"},
    )
    improve_gain: float = Field(
        default=0.05,
        gt=0,
        description="Share of the action cost that a trial for mere saving must promise, besides `min_effect`.",
        json_schema_extra={"unit": "1"},
    )


class JournalSettings(Section):
    """The journal of `iace govern`; that of a run is kept whole."""

    snapshots_kept: int = Field(
        default=10,
        ge=1,
        description="Events before so many latest snapshots are forgotten; there is a snapshot every 10,000 events.",
        json_schema_extra={"unit": "snapshots"},
    )


class StoreSettings(Section):
    """The telemetry store."""

    retention_s: float = Field(
        default=604_800.0,
        gt=0,
        description="Plant time for which every sample is kept; a week.",
        json_schema_extra={"unit": "s"},
    )
    rollup_minute_retention_s: float = Field(
        default=7_776_000.0,
        gt=0,
        description="Plant time for which a row for each minute is kept; 90 days.",
        json_schema_extra={"unit": "s"},
    )
    rollup_hour_retention_s: float = Field(
        default=63_072_000.0,
        gt=0,
        description="Plant time for which a row for each hour is kept; two years.",
        json_schema_extra={"unit": "s"},
    )
    flush_ticks: int = Field(
        default=20,
        ge=1,
        description="Ticks that are written to the store in one batch.",
        json_schema_extra={"unit": "ticks"},
    )


class InfluxdbSettings(Section):
    """Telemetry to InfluxDB or VictoriaMetrics as well; see [influxdb.md](influxdb.md)."""

    url: str | None = Field(default=None, description="Base address of the server. Not set: nothing is sent.")
    bucket: str = Field(
        default="iace",
        min_length=1,
        description="Bucket, which must exist; on 1.8 the database, or `database/retention policy`.",
    )
    org: str = Field(default="", description="Organisation; 2.x demands it, the others ignore it.")
    database: str = Field(default="", description="What InfluxQL calls the bucket, where that is not its own name.")
    token_file: Path | None = Field(
        default=None,
        strict=False,
        description="File that holds the token; `user:password` on 1.8. The token itself stands in no configuration.",
    )
    ca_file: Path | None = Field(
        default=None, strict=False, description="Certificates to trust for https, where the usual ones do not do."
    )
    timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Longest that one request may take; no tick waits for it.",
        json_schema_extra={"unit": "s"},
    )
    spool_mib: int = Field(
        default=256,
        ge=1,
        le=1_048_576,
        description="Bound on what waits on disk for the server; beyond it the oldest go, counted.",
        json_schema_extra={"unit": "MiB"},
    )
    batch_points: int = Field(
        default=5000,
        ge=1,
        le=100_000,
        description="Lines in one request; servers are at their best between 5,000 and 10,000.",
        json_schema_extra={"unit": "lines"},
    )
    linger_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Longest stay in memory before the disk: what a killed process loses at most.",
        json_schema_extra={"unit": "s"},
    )
    base_time: str | None = Field(
        default=None,
        description="UTC time, ISO 8601, of plant time 0. Not set: a real-time plant is stamped by the wall clock, and "
        "a run in virtual time, which has no time of day, sends nothing.",
    )


class PrometheusSettings(Section):
    """The exporter for Prometheus."""

    node_series_max: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="Nodes with series of their own in a scrape and in the telemetry store, the worst by |g|; those "
        "that are isolated always have them. InfluxDB gets all nodes.",
        json_schema_extra={"unit": "nodes"},
    )


class ApiSettings(Section):
    """The HTTP API of `iace govern`; see [api.md](api.md)."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to bind. Anything but loopback wants TLS and tokens, and is warned of without.",
    )
    port: int = Field(
        default=8470,
        ge=0,
        le=65_535,
        description="Where it listens; 0 takes any free one.",
        json_schema_extra={"unit": "TCP port"},
    )
    tls_cert_file: Path | None = Field(
        default=None, strict=False, description="Certificate chain (PEM) for https, together with its key."
    )
    tls_key_file: Path | None = Field(default=None, strict=False, description="Its private key (PEM), not encrypted.")
    cors_origins: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Origins, such as `https://grafana.example`, whose pages may read the API. None by default.",
    )
    streams_max: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="Event streams at once, each of which takes a thread; more are told to come back later.",
        json_schema_extra={"unit": "streams"},
    )
    rate_per_s: float = Field(
        default=100.0,
        gt=0,
        description="Requests a second that one client may make in the long run: far more than dashboards do, and far "
        "less than would slow the ticks down.",
        json_schema_extra={"unit": "1/s"},
    )
    burst: float = Field(
        default=200.0,
        ge=1,
        description="Requests that one client may make at once: a dashboard loads all its panels together.",
        json_schema_extra={"unit": "requests"},
    )
    body_max_bytes: int = Field(
        default=65_536,
        ge=1024,
        le=16_777_216,
        description="Longest body of a request; a command takes a few hundred bytes.",
        json_schema_extra={"unit": "byte"},
    )
    request_deadline_s: float = Field(
        default=15.0,
        gt=0,
        le=600,
        description="Total time in which a request has to arrive, and its answer to be taken, however slowly it drips.",
        json_schema_extra={"unit": "s"},
    )
    anonymous_read: bool | None = Field(
        default=None,
        description="Whether reading needs no token. Not set: only from this machine, and only while there are no "
        "tokens. Control always needs one.",
    )


class LogSettings(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="The least that is logged."
    )
    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or one JSON object a line.")


class Config(Section):
    """All settings, as they are in force."""

    plant: PlantSettings = PlantSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    kpi: dict[str, KpiSettings] = Field(default_factory=dict)
    gravity: GravitySettings = GravitySettings()
    isolation: IsolationSettings = IsolationSettings()
    healing: HealingSettings = HealingSettings()
    journal: JournalSettings = JournalSettings()
    store: StoreSettings = StoreSettings()
    influxdb: InfluxdbSettings = InfluxdbSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @property
    def auto_apply(self) -> bool:
        """`healing.auto_apply`, decided."""
        return self.plant.kind == "embedded" if self.healing.auto_apply is None else self.healing.auto_apply

    def catalogue(self) -> Mapping[str, Kpi]:
        """The KPI catalogue with the configured limits."""
        return with_limits({name: limits.model_dump(exclude_none=True) for name, limits in self.kpi.items()})
