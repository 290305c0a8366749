"""The line-protocol encoder: exact lines, what is left out and counted, and the round trip through real parsers."""

from __future__ import annotations

import math
import re
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from metrics.store.influx_client import InfluxClient, InfluxTarget
from metrics.store.line_protocol import (
    TIME_MAX_NS,
    TIME_MIN_NS,
    Encoder,
    FieldType,
    decode_name,
    encode_name,
    field_type,
    series_key,
)

AWKWARD = st.text(
    st.sampled_from("\\\",= '#%\n\r\t\0\x7fab\N{GREEK SMALL LETTER LAMDA}\N{GRINNING FACE}\u2028"), min_size=1
)
NAMES = (AWKWARD | st.text(min_size=1, max_size=40)).filter(lambda name: name != "time")
TEXTS = AWKWARD | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.floats(allow_nan=False, allow_infinity=False) | INTEGERS | st.booleans() | TEXTS
ROUND_TRIPS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking asks the server far too often
)

_numbers = count()


@pytest.fixture(scope="module")
def lines_database(influx_server):
    """A database for lines of every kind."""
    return influx_server.create("lines")


def line(fields, *, measurement="m", tags=None, at_ns=1):
    return Encoder().line(measurement, tags or {}, fields, at_ns)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.5, "1.5"),
        (-0.0, "-0.0"),
        (1e16, "1e+16"),
        (5e-324, "5e-324"),
        (0.1 + 0.2, "0.30000000000000004"),
        (np.float64(2.5), "2.5"),
        (np.float32(0.5), "0.5"),
        (7, "7i"),
        (-(2**63), "-9223372036854775808i"),
        (2**63 - 1, "9223372036854775807i"),
        (np.int32(-4), "-4i"),
        (True, "true"),
        (np.bool_(False), "false"),  # noqa: FBT003 - the value is the test
        ("", '""'),
        ('say "a\\b"', '"say \\"a\\\\b\\""'),
        ("two\nlines, a = b", '"two\nlines, a = b"'),
        ("lone \ud800", '"lone ?"'),
    ],
)
def test_values_are_written_in_the_form_of_their_type(value, written):
    """Floats bare and exact, integers with an i, truth values as words, texts in quotes."""
    assert line({"f": value}) == f"m f={written} 1"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain-1.5/x", "plain-1.5/x"),
        ("a b,c=d", "a\\ b\\,c\\=d"),
        ('it\'s "so"', 'it\'s\\ "so"'),
        ("back\\slash", "back%5Cslash"),
        ("end\\", "end%5C"),
        ("100%", "100%25"),
        ("new\nline\x00", "new%0Aline%00"),
        ("λ 😀", "λ\\ 😀"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_names_are_escaped_where_they_stand(text, written):
    """Comma, space and equals sign are escaped, what no server can keep is percent-encoded."""
    assert line({text: 1}, tags={text: text}) == f"m,{written}={written} {written}=1i 1"
    assert series_key(text, {}) == written
    assert decode_name(encode_name(text)) == text


def test_a_measurement_is_never_a_comment():
    """A leading # is encoded, since servers take the line for a comment and say nothing; elsewhere it stays."""
    assert series_key("#m", {"#t": "#v"}) == "%23m,#t=#v"


def test_tags_are_sorted_and_empty_ones_left_out():
    """Tags come in the order of their names; one without a value cannot be written."""
    assert series_key("m", {"b": "2", "c": "", "a": "1"}) == "m,a=1,b=2"


@pytest.mark.parametrize("name", ["", "time"])
def test_names_that_servers_lose_are_refused(name):
    """Empty names, and "time" as field, tag or measurement, are errors."""
    for use in (
        lambda: line({name: 1}),
        lambda: line({"f": 1}, tags={name: "x"}),
        lambda: line({"f": 1}, measurement=name),
    ):
        with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
            use()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, 2**63, -(2**63) - 1, np.float64("nan")])
def test_values_without_a_form_are_left_out_and_counted(value):
    """Such a field is omitted and the rest written; a point of nothing else is no line at all."""
    encoder = Encoder()
    assert encoder.line("m", {}, {"bad": value, "good": 1.0}, 1) == "m good=1.0 1"
    assert encoder.line("m", {}, {"bad": value}, 1) is None
    assert encoder.line("m", {}, {}, 1) is None
    assert encoder.omitted == 2


@pytest.mark.parametrize(
    ("at_ns", "written"), [(TIME_MIN_NS, True), (TIME_MAX_NS, True), (TIME_MIN_NS - 1, False), (2**63 - 1, False)]
)
def test_times_beyond_the_servers_are_no_line(at_ns, written):
    """InfluxDB's own limits bound the time; the values of a point beyond them are counted."""
    encoder = Encoder()
    assert encoder.line("m", {}, {"a": 1.0, "b": 2.0}, at_ns) == (f"m a=1.0,b=2.0 {at_ns}" if written else None)
    assert encoder.omitted == (0 if written else 2)


def test_a_field_never_changes_its_type():
    """Its first value gives a field its type; integers fit into a float field, anything else is left out."""
    encoder = Encoder()
    first = {"f": 1.0, "i": 1, "b": True, "s": "x"}
    assert encoder.line("m", {}, first, 1) == 'm f=1.0,i=1i,b=true,s="x" 1'
    values = [2.5, 3, np.int64(4), False, "y", None]
    lines = [encoder.line("m", {}, dict.fromkeys(first, value), 1) for value in values]
    assert lines == ["m f=2.5 1", "m f=3.0,i=3i 1", "m f=4.0,i=4i 1", "m b=false 1", 'm s="y" 1', None]
    assert encoder.omitted == 3 + 2 + 2 + 3 + 3 + 4
    assert encoder.line("m", {}, {"f": 10**400}, 1) is None
    assert encoder.line("other", {}, {"f": "text"}, 1) == 'other f="text" 1'


@pytest.mark.parametrize("value", [b"bytes", object(), 1j, [1.0]])
def test_what_no_field_can_hold_is_an_error(value):
    """A value of a foreign type is a mistake of the caller."""
    with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
        line({"f": value})


@given(VALUES, VALUES)
def test_a_second_value_is_of_the_first_ones_type_or_left_out(first, second):
    """Whatever comes, a field that has been written once is written in that type ever after."""
    encoder = Encoder()
    if encoder.line("m", {}, {"f": first}, 1) is not None:
        kind, other = field_type(first), field_type(second)
        widened = kind is FieldType.FLOAT and other is FieldType.INTEGER
        assert (encoder.line("m", {}, {"f": second}, 2) is not None) == (kind is other or widened)


@given(NAMES)
def test_names_come_back(name):
    """Decoding gives every name back, whatever it contains."""
    stored = encode_name(name)
    assert decode_name(stored) == name
    assert not any(character in stored for character in "\\\n\r\0")


@ROUND_TRIPS
@given(
    st.lists(
        st.tuples(
            NAMES, st.dictionaries(NAMES, NAMES, max_size=3), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(TIME_MIN_NS, TIME_MAX_NS),
)
def test_everything_comes_back_from_the_real_server(influx_server, lines_database, points, at_ns):
    """Measurements, tags, fields and values of every kind are what they were, after the real parser and engine."""
    encoder = Encoder()
    example = f"{next(_numbers)}."  # tells the measurements of one example apart
    expected = {
        # A query over several measurements wants one name for one thing: tag or field, of one type.
        f"{example}{number}{measurement}": (
            {f"t{name}": text for name, text in tags.items()},
            {f"f{number}{name}": value for name, value in fields.items()},
        )
        for number, (measurement, tags, fields) in enumerate(points)
    }
    lines = [encoder.line(name, tags, fields, at_ns).encode() for name, (tags, fields) in expected.items()]
    client = InfluxClient(InfluxTarget(influx_server.url, lines_database))
    assert client.send(lines) == []
    found = {}
    for part in client.query(f"SELECT * FROM /^{re.escape(example)}/ GROUP BY *"):  # noqa: S608 - a number
        ((found_at_ns, *values),) = part["values"]
        assert found_at_ns == at_ns
        names = map(decode_name, part["columns"][1:])
        fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        tags = {decode_name(name): decode_name(value) for name, value in part.get("tags", {}).items() if value}
        name = decode_name(part["name"])
        written = expected[name][1]
        # The server's JSON shows a whole float without a point.
        found[name] = (tags, {key: type(written[key])(value) for key, value in fields.items()})
    client.close()
    assert found == expected


@ROUND_TRIPS
@given(st.dictionaries(NAMES, NAMES, min_size=1, max_size=3), st.floats(-1e300, 1e300))
def test_names_and_numbers_arrive_at_victoria_metrics(victoria_metrics, tags, value):
    """VictoriaMetrics finds no row invalid, whatever the names: it would say so nowhere but in a counter."""
    invalid = victoria_metrics.counter("vm_rows_invalid_total")
    number = str(next(_numbers))
    tags = {"number": number, **{f"t{name}": text for name, text in tags.items()}}
    client = InfluxClient(InfluxTarget(victoria_metrics.url, "iace"))
    assert client.send([Encoder().line("m", tags, {"v": value}, 1_700_000_000 * 10**9).encode()]) == []
    client.close()
    (series,) = victoria_metrics.export(f'm_v{{number="{number}"}}')
    found = {decode_name(name): decode_name(text) for name, text in series["metric"].items()}
    assert found == {"__name__": "m_v", **tags}
    assert series["values"] == pytest.approx([value], rel=1e-12)
    assert victoria_metrics.counter("vm_rows_invalid_total") == invalid
