"""What must several settings have in common? The rules that no single field can check.

A rule names the settings that it reads. That lets a configuration with broken fields still be told everything else that
is wrong with it: only the rules that read a broken setting are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from controller.clock import utc_ns
from controller.settings import Config, KpiSettings
from metrics.kpi import CATALOGUE, Limit, Side

CLUSTER_NODES_MIN = 3  # fewer nodes have no majority that could tell the good from the bad


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        path: the setting that is named as broken.
        reads: every setting that the rule looks at, `path` included.
        problem: says what is wrong, or None.
    """

    path: str
    reads: frozenset[str]
    problem: Callable[[Config], str | None]


def problems(config: Config, broken: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Every rule that `config` violates, as the path of a setting and a sentence.

    Args:
        config: settings whose fields are valid each by itself.
        broken: paths whose values are placeholders, because what was given is no valid value.
    """
    for rule in RULES:
        if not any(_within(path, item) for path in rule.reads for item in broken):
            problem = rule.problem(config)
            if problem is not None:
                yield rule.path, problem
    for name, limits in config.kpi.items():
        path = f"kpi.{name}"
        problem = None if any(_within(item, path) for item in broken) else _kpi(name, limits)
        if problem is not None:
            yield path, problem


def _within(path: str, table: str) -> bool:
    return path == table or path.startswith(f"{table}.")


def _url_needed(config: Config) -> str | None:
    if config.plant.kind == "http" and config.plant.url is None:
        return 'is needed with plant.kind = "http", e.g. http://127.0.0.1:8080'
    return None


def _url_form(config: Config) -> str | None:
    return _address(config.plant.url, "plant.token_file")


def _influxdb_url(config: Config) -> str | None:
    return _address(config.influxdb.url, "influxdb.token_file")


def _address(url: str | None, token_file: str) -> str | None:
    """What is wrong with an address, if one is given."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no URL"
    if not usable or any(character.isspace() for character in url):
        return "must be an http:// or https:// address with a host"
    # The address is printed, logged and journaled: it is no place for anything secret.
    if parts.username is not None or parts.query or parts.fragment:
        return f"must hold no user, password, query or fragment; a token belongs in {token_file}"
    return None


def _tls(config: Config) -> str | None:
    api = config.api
    if (api.tls_cert_file is None) != (api.tls_key_file is None):
        return "api.tls_cert_file and api.tls_key_file are needed together, or neither"
    return None


def _origins(config: Config) -> str | None:
    wrong = [number for number, origin in enumerate(config.api.cors_origins, 1) if not _is_origin(origin)]
    if wrong:
        return f"entry {wrong[0]} is no origin: write it like https://grafana.example:3000, without user and path"
    return None


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return text == f"{parts.scheme}://{parts.netloc}" and parts.scheme in ("http", "https") and "@" not in text


def _base_time(config: Config) -> str | None:
    text = config.influxdb.base_time
    if text is None:
        return None
    try:
        utc_ns(text)
    except ValueError as error:
        return str(error)
    return None


def _recording_needed(config: Config) -> str | None:
    if config.plant.kind == "replay" and config.plant.recording is None:
        return 'is needed with plant.kind = "replay": name it with --from'
    return None


def _more_clusters_than_nodes(config: Config) -> str | None:
    plant = config.plant
    if plant.clusters is not None and plant.clusters > plant.nodes:
        return f"{plant.clusters} clusters cannot be made of {plant.nodes} nodes"
    return None


def _cluster_sizes(config: Config) -> str | None:
    plant = config.plant
    if plant.clusters is None or plant.clusters > plant.nodes:
        return None
    smallest = plant.nodes // plant.clusters
    if smallest < CLUSTER_NODES_MIN:
        return (
            f"{plant.clusters} clusters of {plant.nodes} nodes leave some with {smallest}, every cluster needs "
            f"{CLUSTER_NODES_MIN}: at most {plant.nodes // CLUSTER_NODES_MIN} clusters"
        )
    return None


def _evidence(config: Config) -> str | None:
    needed, nodes = config.isolation.evidence_nodes_min, config.plant.nodes
    if config.plant.kind == "embedded" and needed > nodes:
        return f"{needed} trusted nodes can never be seen in a cluster of {nodes}, nobody could be isolated"
    return None


def _quorum(config: Config) -> str | None:
    quorum, nodes = config.isolation.quorum, config.plant.nodes
    if config.plant.kind == "embedded" and quorum > nodes:
        return f"{quorum} active nodes can never be left of {nodes}, nobody could be isolated"
    return None


def _readmission(config: Config) -> str | None:
    clean, critical = config.isolation.readmit_gravity, config.gravity.critical
    if clean >= critical:
        return f"{clean} must be below gravity.critical ({critical}), or nodes would be re-admitted as wells"
    return None


def _backoff(config: Config) -> str | None:
    base, cap = config.isolation.backoff_base_s, config.isolation.backoff_max_s
    return f"{cap} must be at least isolation.backoff_base_s ({base})" if cap < base else None


def _time_limit(config: Config) -> str | None:
    ttl, verify = config.isolation.ttl_s, config.isolation.verify_s
    if ttl <= verify:
        return f"{ttl} must be above isolation.verify_s ({verify}), or isolations would end before they are verified"
    return None


def _minutes_kept(config: Config) -> str | None:
    finer, coarser = config.store.retention_s, config.store.rollup_minute_retention_s
    return f"{coarser} must be at least store.retention_s ({finer})" if coarser < finer else None


def _hours_kept(config: Config) -> str | None:
    finer, coarser = config.store.rollup_minute_retention_s, config.store.rollup_hour_retention_s
    return f"{coarser} must be at least store.rollup_minute_retention_s ({finer})" if coarser < finer else None


def _kpi(name: str, limits: KpiSettings) -> str | None:
    limited = [kpi.name for kpi in CATALOGUE.values() if kpi.limit is not None]
    if name not in CATALOGUE:
        return f"unknown KPI; those with limits are {', '.join(limited)}"
    limit = CATALOGUE[name].limit
    if limit is None:
        return f"is only watched and has no limits; those with limits are {', '.join(limited)}"
    moved = limit.moved(limits.healthy, limits.critical)
    return _order(moved)


def _order(limit: Limit) -> str | None:
    if limit.critical is None:
        return None
    worse = limit.critical <= limit.healthy if limit.side is Side.AT_LEAST else limit.critical >= limit.healthy
    if worse:
        return None
    side = "above" if limit.side is Side.AT_LEAST else "below"
    return f"critical ({limit.critical}) must not be {side} healthy ({limit.healthy})"


def _rule(problem: Callable[[Config], str | None], path: str, *others: str) -> Rule:
    return Rule(path, frozenset((path, *others)), problem)


RULES: tuple[Rule, ...] = (
    _rule(_url_needed, "plant.url", "plant.kind"),
    _rule(_url_form, "plant.url"),
    _rule(_recording_needed, "plant.recording", "plant.kind"),
    _rule(_more_clusters_than_nodes, "plant.clusters", "plant.nodes"),
    _rule(_cluster_sizes, "plant.clusters", "plant.nodes"),
    _rule(_evidence, "isolation.evidence_nodes_min", "plant.nodes", "plant.kind"),
    _rule(_quorum, "isolation.quorum", "plant.nodes", "plant.kind"),
    _rule(_readmission, "isolation.readmit_gravity", "gravity.critical"),
    _rule(_backoff, "isolation.backoff_max_s", "isolation.backoff_base_s"),
    _rule(_time_limit, "isolation.ttl_s", "isolation.verify_s"),
    _rule(_minutes_kept, "store.rollup_minute_retention_s", "store.retention_s"),
    _rule(_influxdb_url, "influxdb.url"),
    _rule(_base_time, "influxdb.base_time"),
    _rule(_tls, "api.tls_cert_file", "api.tls_key_file"),
    _rule(_origins, "api.cors_origins"),
    _rule(_hours_kept, "store.rollup_hour_retention_s", "store.rollup_minute_retention_s"),
)
