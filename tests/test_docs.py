"""The documentation tells the truth: links lead somewhere, tables and diagram are those of the code, commands exist."""

import argparse
import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest

from controller.cli import _parser
from state.diagram import mermaid
from state.isolation import Guard
from state.outcome import PRECEDENCE, ExitCode
from state.phase import Phase

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
SOURCES = sorted(
    path for package in ("controller", "metrics", "qecs", "state") for path in ROOT.glob(f"{package}/**/*.py")
)
SCENARIOS = {path.stem for path in (ROOT / "qecs" / "scenarios").glob("*.toml")}

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE_ROW = re.compile(r"^\| (\d+) \| ([A-Z_]+) \|", re.MULTILINE)
CITED = re.compile(r"docs/([a-z0-9-]+\.(?:md|schema\.json))(?: section (\d+))?")
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    names = (heading.replace("`", "").lower() for heading in HEADING.findall(page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", name).strip().replace(" ", "-") for name in names}


def commands():
    """The iace commands of all shell examples, each as its page and its words after `iace`."""
    for page in PAGES:
        for block in SHELL.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
                lexer.whitespace_split = True
                words = list(lexer)
                while "iace" in words:
                    words = words[words.index("iace") + 1 :]
                    ends = [at for at, word in enumerate(words) if set(word) <= set(";&|")]
                    yield pytest.param(
                        words[: ends[0] if ends else None], id=f"{page.name}: {line.split('#')[0].strip()}"
                    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    """Each relative link names a file that is there, and its anchor a heading in it."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_page():
    """docs/README.md links every file of the folder."""
    linked = set(LINK.findall(text("docs/README.md")))
    assert {path.name for path in DOCS.iterdir()} - linked == {"README.md"}


@pytest.mark.parametrize("page", ["docs/interfaces.md", "docs/exit-codes.md"])
def test_the_exit_codes_are_those_of_the_code(page):
    """Numbers and names in the table are the enumeration's, all of them and in order."""
    assert CODE_ROW.findall(text(page)) == [(str(int(code)), code.name) for code in ExitCode]


@pytest.mark.parametrize("page", ["docs/exit-codes.md", "docs/decisions.md"])
def test_the_precedence_is_that_of_the_code(page):
    """The order in which causes decide stands in the page as the code has it."""
    order = " > ".join(str(int(code)) for code in PRECEDENCE) + " > 0"
    phases = "10 > 20 > 30"
    assert order in text(page).replace("first failed phase (10, 20, 30)", phases)


def test_the_diagram_is_that_of_the_table():
    """The state diagram in docs/architecture.md is what `iace diagram` prints."""
    assert f"```mermaid\n{mermaid()}```" in text("docs/architecture.md")


def test_the_states_keep_their_numbers():
    """docs/architecture.md lists each state with its permanent number."""
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", text("docs/architecture.md"), re.MULTILINE)
    assert rows == [(phase.value, str(phase.number)) for phase in Phase]


def test_every_guard_of_an_isolation_is_explained():
    """docs/architecture.md names each guard but the one that only tuning knows."""
    page = text("docs/architecture.md")
    assert {guard for guard in Guard if f"`{guard}`" not in page} <= {Guard.IN_FLIGHT}


def test_every_shipped_scenario_is_described():
    """The table of docs/scenarios.md has a row for each shipped scenario and for nothing else."""
    table = text("docs/scenarios.md").partition("| name |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| ([a-z-]+) \|", table, re.MULTILINE)) == SCENARIOS


def test_every_command_is_documented():
    """docs/interfaces.md has a row for each command, and for no other."""
    rows = re.findall(r"^\| `(iace [a-z -]+)` \|", text("docs/interfaces.md"), re.MULTILINE)
    assert sorted(rows) == sorted(_leaves(_parser(), "iace"))


@pytest.mark.parametrize("words", list(commands()))
def test_documented_commands_are_understood(words, capsys):
    """Each `iace` command in the examples is accepted by the parser, except for the one that shows a usage error."""
    if "--no-such-flag" in words:
        with pytest.raises(SystemExit, match="2"):
            _parser().parse_args(words)
        assert "unrecognized arguments: --no-such-flag" in capsys.readouterr().err
        return
    assert callable(_parser().parse_args(words).command)


def test_code_cites_pages_and_sections_that_exist():
    """Whatever a docstring or comment cites of docs/ is there, with the section it names."""
    for source in SOURCES:
        # A citation may be broken over two lines of a docstring.
        plain = re.sub(r"\s*\n\s*(?:# )?", " ", source.read_text(encoding="utf-8"))
        for name, section in CITED.findall(plain):
            assert (DOCS / name).exists(), f"{source} cites docs/{name}"
            if section:
                assert f"\n## {section}. " in text(f"docs/{name}"), f"{source} cites section {section}"


def test_examples_in_docstrings_work():
    """Each doctest of the packages gives what it shows."""
    with_examples = [path for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")]
    assert with_examples
    for path in with_examples:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        assert doctest.testmod(module).failed == 0, path


def _leaves(parser, name):
    """The full names of all commands that have no commands of their own."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        return [name]
    return [leaf for action in inner for word, sub in action.choices.items() for leaf in _leaves(sub, f"{name} {word}")]
