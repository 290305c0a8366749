"""Configuration: layers, problems, effective values and the generated reference."""

import dataclasses
import errno
import tomllib
from pathlib import Path

import pytest

from controller import config_reference
from controller.config import Source, effective, fingerprint, load, token, values
from controller.settings import Config
from metrics.errors import ConfigInvalidError
from metrics.gravity import GRAVITY_CRITICAL
from metrics.kpi import CATALOGUE
from state.healing import HealingPolicy
from state.isolation import IsolationPolicy

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nobody's iace.toml is picked up."""
    monkeypatch.chdir(tmp_path)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def problems(path=None, overrides=None, environ=None):
    with pytest.raises(ConfigInvalidError) as caught:
        load(path, overrides or {}, environ or {})
    return list(caught.value.problems)


def test_nothing_given_is_the_defaults():
    """Without file, variables and flags every setting has its default."""
    config = load(None, {}, {})
    assert config == Config()
    assert (config.plant.kind, config.plant.nodes, config.schedule.ticks) == ("embedded", 50, 300)
    assert config.isolation.cluster_fraction_max == pytest.approx(1 / 3)


def test_flags_beat_variables_and_variables_beat_the_file(tmp_path):
    """Each layer lies over the one before, key by key."""
    path = write(tmp_path / "a.toml", "[plant]\nnodes = 10\nseed = 1\n[schedule]\nticks = 7\n")
    environ = {"IACE_PLANT__NODES": "20", "IACE_PLANT__SEED": "2"}
    config = load(path, {"plant": {"nodes": 30, "seed": None}}, environ)
    assert (config.plant.nodes, config.plant.seed, config.schedule.ticks) == (30, 2, 7)


def test_file_is_found_by_variable_and_then_in_the_working_directory(tmp_path):
    """IACE_CONFIG names the file, else iace.toml lies in the working directory."""
    write(tmp_path / "iace.toml", "[plant]\nseed = 3\n")
    other = write(tmp_path / "other.toml", "[plant]\nseed = 4\n")
    assert load(None, {}, {}).plant.seed == 3
    assert load(None, {}, {"IACE_CONFIG": str(other)}).plant.seed == 4
    assert load(None, {}, {"IACE_CONFIG": ""}).plant.seed == 3


def test_variables_are_read_by_the_type_of_their_setting():
    """Text becomes numbers, truth values and nested KPI limits; an empty variable counts as not set."""
    environ = {
        "IACE_PLANT__CLUSTERS": "4",
        "IACE_PLANT__PROBE_SENDER": "42",
        "IACE_HEALING__ENABLED": "false",
        "IACE_KPI__COHERENCE__HEALTHY": "0.92",
        "IACE_PLANT__URL": "",
        "IACE_TEST_ANYTHING": "x",
        "PATH": "/bin",
    }
    config = load(None, {}, environ)
    assert (config.plant.clusters, config.plant.probe_sender, config.healing.enabled) == (4, "42", False)
    assert config.catalogue()["coherence"].limit.healthy == 0.92
    assert config.plant.url is None


def test_every_problem_is_told_at_once_with_path_and_place(tmp_path):
    """Broken fields, unknown keys, unknown variables and broken rules come in one list."""
    path = write(
        tmp_path / "bad.toml",
        '[plant]\nkind = "http"\nnodes = "7"\nseed = true\n[isolation]\nquorom = 3\nfraction_max = nan\n'
        "readmit_gravity = 2\n[grafana]\nurl = 1\n[kpi.nope]\nhealthy = 1\n",
    )
    told = problems(path, {"healing": {"step": 0.5}}, {"IACE_PLANT__NODE": "3", "IACE_SCHEDULE__TICKS": "abc"})
    place = f"(in {path})"
    assert f"plant.nodes: should be a valid integer, not '7' {place}" in told
    assert f"plant.seed: should be a valid integer, not True {place}" in told
    assert f"isolation.quorom: unknown key; did you mean quorum? {place}" in told
    assert f"isolation.fraction_max: should be a finite number, not nan {place}" in told
    assert "healing.step: should be greater than 1, not 0.5 (from the command line)" in told
    assert "schedule.ticks: should be a valid integer, not 'abc' (from IACE_SCHEDULE__TICKS)" in told
    assert "IACE_PLANT__NODE: no such setting; did you mean IACE_PLANT__NODES?" in told
    assert any(text.startswith("grafana: unknown key") for text in told)
    assert any(text.startswith("kpi.nope: unknown KPI") for text in told)
    assert any(text.startswith("plant.url: is needed") for text in told)
    assert any(text.startswith("isolation.readmit_gravity: 2.0 must be below gravity.critical (1.5)") for text in told)
    assert len(told) == 11


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"plant": {"nodes": 4}}, "plant.nodes: should be greater than or equal to 5, not 4"),
        ({"plant": {"nodes": 0}}, "plant.nodes: should be greater than or equal to 5, not 0"),
        ({"plant": {"nodes": 9, "clusters": 4}}, "plant.clusters: 4 clusters of 9 nodes leave some with 2"),
        ({"plant": {"nodes": 5, "clusters": 6}}, "plant.clusters: 6 clusters cannot be made of 5 nodes"),
        ({"plant": {"clusters": 0}}, "plant.clusters: should be greater than or equal to 1, not 0"),
        ({"plant": {"kind": "ssh"}}, "plant.kind: should be 'embedded', 'http' or 'replay', not 'ssh'"),
        ({"plant": {"kind": "replay"}}, "plant.recording: is needed with plant.kind"),
        ({"plant": {"kind": "http", "url": "ftp://h"}}, "plant.url: must be an http:// or https:// address"),
        ({"plant": {"kind": "http", "url": "http://h:99999"}}, "plant.url: is no URL"),
        ({"isolation": {"fraction_max": 1.0}}, "isolation.fraction_max: should be less than 1, not 1.0"),
        ({"isolation": {"backoff_max_s": 5.0}}, "isolation.backoff_max_s: 5.0 must be at least"),
        ({"isolation": {"ttl_s": 10.0}}, "isolation.ttl_s: 10.0 must be above isolation.verify_s"),
        ({"isolation": {"evidence_nodes_min": 51}}, "isolation.evidence_nodes_min: 51 trusted nodes can never be seen"),
        ({"isolation": {"quorum": 51}}, "isolation.quorum: 51 active nodes can never be left of 50"),
        ({"isolation": {"ttl_s": 1e301}}, "isolation.ttl_s: should be less than or equal to 100000000, not 1e+301"),
        ({"schedule": {"interval_s": 1e-7}}, "schedule.interval_s: should be greater than or equal to 0.001"),
        ({"schedule": {"report_s": 1e12}}, "schedule.report_s: should be less than or equal to 1000000"),
        ({"schedule": {"interval_s": float("inf")}}, "schedule.interval_s: should be a finite number, not inf"),
        ({"kpi": {"entropy": {"healthy": 1.0}}}, "kpi.entropy: is only watched"),
        ({"kpi": {"coherence": {"healthy": 0.8}}}, "kpi.coherence: critical (0.85) must not be above healthy (0.8)"),
        ({"kpi": {"action_cost": {"critical": 0.01}}}, "kpi.action_cost: critical (0.01) must not be below healthy"),
        ({"bogus": {"a": 1}}, "bogus: unknown key; known are api, gravity, healing"),
    ],
)
def test_a_setting_out_of_its_range_or_at_odds_with_another_is_refused(overrides, expected):
    """One broken setting is one problem that says what is allowed."""
    (told,) = problems(overrides=overrides)
    assert told.startswith(expected)


def test_a_rule_that_reads_a_broken_setting_is_left_out():
    """A broken value is told once, not again by a rule that would have judged its placeholder."""
    (told,) = problems(overrides={"plant": {"clusters": 40, "nodes": "x"}})
    assert told.startswith("plant.nodes: should be a valid integer")


def test_a_secret_in_the_address_is_refused_and_never_repeated():
    """A URL with a password is a problem whose text does not hold the password."""
    (told,) = problems(overrides={"plant": {"kind": "http", "url": "http://me:hunter2@h/"}})
    assert "a token belongs in plant.token_file" in told
    assert "hunter2" not in told


def test_a_file_that_cannot_be_used_says_why(tmp_path):
    """A missing file, a directory, broken TOML (with its line) and bytes that are no text are all told."""
    assert problems(tmp_path / "none.toml") == ["no such file; leave it out to run with the defaults"]
    assert problems(tmp_path) == ["cannot be read: Is a directory"]
    broken = write(tmp_path / "broken.toml", "[plant]\nnodes = = 3\n")
    assert problems(broken) == ["is not TOML: Invalid value (at line 2, column 9)"]
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    assert problems(tmp_path / "bytes.toml")[0].startswith("cannot be read: 'utf-8' codec")
    deep = write(tmp_path / "deep.toml", "a = " + "[" * 100_000)
    assert problems(deep)[0].startswith("is not TOML: ")


def test_only_a_file_that_is_not_there_means_the_defaults(monkeypatch, tmp_path):
    """An iace.toml that cannot even be looked at is an error that names it: it may be there."""
    (tmp_path / "iace.toml").symlink_to("iace.toml")
    assert problems() == ["cannot be read: Too many levels of symbolic links"]

    def shut(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", shut)
    monkeypatch.setattr(Path, "open", shut)
    assert problems() == ["cannot be read: Permission denied"]


def test_a_file_that_was_there_is_needed_from_then_on(tmp_path):
    """Read again without its file, a configuration is refused, whoever named the file; an empty one is the defaults."""
    file = tmp_path / "iace.toml"
    for path in (None, file):
        source = Source(path, {}, {})
        write(file, "[isolation]\nquorum = 4\n")
        assert source.load().isolation.quorum == 4
        file.unlink()
        with pytest.raises(ConfigInvalidError) as gone:
            source.load()
        assert list(gone.value.problems) == ["the file is gone; an empty one would mean the defaults"]
        write(file, "")
        assert source.load() == Config()
        file.unlink()


def test_a_file_may_come_later(tmp_path):
    """Who began without one reads it once it is there."""
    source = Source(None, {}, {})
    assert source.load() == Config()
    assert source.load() == Config()
    write(tmp_path / "iace.toml", "[isolation]\nquorum = 4\n")
    assert source.load().isolation.quorum == 4


def test_a_huge_file_is_refused(tmp_path):
    """A mistaken path does not fill the memory."""
    path = tmp_path / "huge.toml"
    path.write_bytes(b"#" * 1_000_001)
    assert problems(path) == ["longer than 1000000 bytes: this is no configuration"]


def test_what_is_not_set_is_decided_by_the_kind_of_plant():
    """Probes, fault injection and corrections are allowed on an embedded plant and asked for elsewhere."""
    embedded = load(None, {}, {})
    remote = load(None, {"plant": {"kind": "http", "url": "http://127.0.0.1:8080"}}, {})
    asked = load(None, {"plant": {"kind": "http", "url": "http://h", "allow_probes": True}}, {})
    for config, expected in ((embedded, True), (remote, False)):
        assert config.plant.probes_allowed is expected
        assert config.plant.fault_injection_allowed is expected
        assert config.auto_apply is expected
    assert asked.plant.probes_allowed
    assert not asked.plant.fault_injection_allowed


def test_effective_values_are_a_file_that_gives_the_same_again(tmp_path):
    """What `effective` prints is TOML; loading it decides alike, and what is not set stands there as a comment."""
    config = load(None, {"plant": {"nodes": 9, "clusters": 3}, "kpi": {"rsi": {"healthy": 0.7}}}, {})
    text = effective(config)
    again = load(write(tmp_path / "again.toml", text), {}, {})
    assert values(again) == values(config)
    assert fingerprint(again) == fingerprint(config)
    assert "# url is not set" in text
    assert tomllib.loads(text)["plant"]["allow_probes"] is True


def test_the_fingerprint_moves_with_decisions_only():
    """Another limit is another fingerprint; another log level, address or token file is not."""
    base = fingerprint(load(None, {}, {}))
    assert len(base) == 64
    assert fingerprint(load(None, {"isolation": {"quorum": 4}}, {})) != base
    assert fingerprint(load(None, {"kpi": {"rsi": {"healthy": 0.7}}}, {})) != base
    assert fingerprint(load(None, {"log": {"level": "debug"}, "store": {"flush_ticks": 1}}, {})) == base
    assert fingerprint(load(None, {"plant": {"url": "http://h:1"}}, {})) == base
    assert fingerprint(load(None, {"plant": {"allow_probes": True}}, {})) == base


def test_a_configuration_cannot_be_changed():
    """Settings are frozen."""
    config = load(None, {}, {})
    with pytest.raises(ValueError, match="frozen"):
        config.plant.nodes = 6


def test_the_token_comes_from_its_file(tmp_path):
    """A token file holds one token; one that is missing, empty or more than that is a problem."""
    path = write(tmp_path / "token", "s3cret\n")
    config = load(None, {"plant": {"token_file": str(path)}}, {})
    assert token(config) == "s3cret"
    assert token(load(None, {}, {})) is None
    assert "s3cret" not in effective(config)
    for text in ("", "two words", "a\x00b"):
        write(path, text)
        with pytest.raises(ConfigInvalidError, match="must hold one token"):
            token(config)
    path.unlink()
    with pytest.raises(ConfigInvalidError, match="No such file"):
        token(config)


def test_defaults_are_those_of_the_policies():
    """The numbers of configuration and of the policies that they feed are the same, so that each has one value."""
    config = load(None, {}, {})
    isolation = {**config.isolation.model_dump(), "gravity_critical": config.gravity.critical}
    assert isolation == dataclasses.asdict(IsolationPolicy())
    healing = config.healing.model_dump(exclude={"auto_apply"})
    assert healing == dataclasses.asdict(HealingPolicy())
    assert config.gravity.critical == GRAVITY_CRITICAL
    assert config.catalogue() == dict(CATALOGUE)


def test_the_reference_page_is_current():
    """docs/configuration.md is what the models say: python -m controller.config_reference > docs/configuration.md."""
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == config_reference.reference()


def test_every_setting_is_explained():
    """Every setting has a description, and every number a unit."""
    for section, field in Config.model_fields.items():
        if section == "kpi":
            continue
        for key, item in field.annotation.model_fields.items():
            assert item.description.endswith("."), f"{section}.{key}"
            if item.annotation in (int, float) and key != "seed":
                assert item.json_schema_extra["unit"], f"{section}.{key}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"tls_cert_file": "cert.pem"},
            "api.tls_cert_file: api.tls_cert_file and api.tls_key_file are needed together",
        ),
        ({"cors_origins": ["https://a.example/path"]}, "api.cors_origins: entry 1 is no origin"),
        ({"cors_origins": ["*"]}, "api.cors_origins: entry 1 is no origin"),
        ({"cors_origins": ["https://me:pw@a.example"]}, "api.cors_origins: entry 1 is no origin"),
        ({"port": 70_000}, "api.port: should be less than or equal to 65535, not 70000"),
        ({"streams_max": 0}, "api.streams_max: should be greater than or equal to 1, not 0"),
    ],
)
def test_settings_of_the_api_that_make_no_sense_are_refused(settings, expected):
    """Half a certificate, what is no origin, and numbers out of range are told."""
    (told,) = problems(overrides={"api": settings})
    assert told.startswith(expected)


def test_the_api_influences_no_decision_and_its_clients_variables_are_no_settings():
    """Where the API listens leaves the fingerprint alone; IACE_API and IACE_TOKEN are not complained about."""
    plain = load(None, {}, {})
    other = load(None, {"api": {"port": 1}}, {"IACE_API": "http://h", "IACE_TOKEN": "x", "IACE_API__HOST": "::1"})
    assert (other.api.port, other.api.host) == (1, "::1")
    assert fingerprint(other) == fingerprint(plain)
