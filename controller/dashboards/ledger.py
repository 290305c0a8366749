"""Ledger and economy: what is transacted, minted and burned, and does the supply stay what it should be?"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from controller.dashboards import style
from controller.dashboards.board import Board, Row
from controller.dashboards.panels import About, lines_panel, stat_panel
from controller.dashboards.queries import increase, influx, of, prom, prom_now, rate
from controller.dashboards.style import BLUE, GREEN, GREY, ORANGE, RED, YELLOW, steps
from metrics.export_catalogue import KPI_METRICS

TOKENS = "short"
RESULTS = {"committed": GREEN, "retried": YELLOW, "shed": ORANGE, "invalid": RED}


def board() -> Board:
    """The ledger."""
    return Board(
        name="ledger",
        title="IACE / Ledger and economy",
        description="What is transacted, minted and burned, and does the supply stay what it should be?",
        rows=[
            Row(4, [(5, _rate_now()), (5, _share_now()), (5, _supply_now()), (5, _net_now()), (4, _entropy_now())]),
            Row(8, [(12, _transactions()), (12, _shares())]),
            Row(8, [(12, _minted()), (12, _supply())]),
            Row(8, [(8, _entropy()), (8, _kpi("delta_entropy")), (8, _kpi("action_cost"))]),
        ],
    )


def _rate_now() -> model.Panel:
    about = About("Transaction rate", "Committed transactions a second, moving average.", "ops")
    return stat_panel(about, prom(of("iace_transaction_rate")), steps=steps(GREEN), decimals=1, spark=True)


def _share_now() -> model.Panel:
    about = About(
        "Committed share",
        "Committed transactions of all attempts, over the time range.",
        "percentunit",
    )
    committed = increase("iace_transactions_total", 'result="committed"', window="$__range")
    every = increase("iace_transactions_total", window="$__range")
    query = prom_now(f"sum({committed}) / sum({every})")
    return stat_panel(about, query, steps=steps(BLUE), decimals=1)


def _supply_now() -> model.Panel:
    about = About("Supply now", "Tokens in existence.", TOKENS)
    return stat_panel(about, prom(of("iace_supply_tokens")), steps=steps(BLUE), decimals=3, spark=True)


def _net_now() -> model.Panel:
    about = About(
        "Minted less burned",
        "How the supply should have changed over the time range, by what was minted and burned.",
        TOKENS,
    )
    minted = increase("iace_emission_tokens_total", window="$__range")
    burned = increase("iace_burned_tokens_total", window="$__range")
    return stat_panel(about, prom_now(f"sum({minted}) - sum({burned})"), steps=steps(BLUE), decimals=1)


def _entropy_now() -> model.Panel:
    about = About("Entropy now", "Entropy of the commit shares and the supply, in nats.", "suffix: nat")
    return stat_panel(about, prom(of("iace_entropy_nats")), steps=steps(BLUE), decimals=4, spark=True)


def _transactions() -> model.Panel:
    about = About(
        "Transactions a second, by result",
        "Retried ones failed and stay queued, shed ones were dropped for want of room, invalid ones were refused.",
        "ops",
    )
    return lines_panel(
        about,
        [prom(f"sum by (result) ({rate('iace_transactions_total')})", "{{result}}")],
        stacked=True,
        colours=RESULTS,
        low=0.0,
    )


def _shares() -> model.Panel:
    about = About(
        "Share that is not committed",
        "Retried, shed and invalid transactions as shares of all attempts. Invalid ones that rise suggest a byzantine "
        "node; shed ones suggest too little capacity.",
        "percentunit",
    )
    every = f"ignoring (result) group_left sum({rate('iace_transactions_total')})"
    lost = rate("iace_transactions_total", 'result!="committed"')
    bad = f"sum by (result) ({lost})"
    return lines_panel(about, [prom(f"{bad} / {every}", "{{result}}")], colours=RESULTS, low=0.0, decimals=2)


def _minted() -> model.Panel:
    about = About(
        "Minted and burned",
        "Tokens a second that the CAF mints and that transactions burn. Where both agree, the supply is steady.",
        "suffix: tokens/s",
    )
    return lines_panel(
        about,
        [
            prom(f"sum({rate('iace_emission_tokens_total')})", "minted"),
            prom(f"sum({rate('iace_burned_tokens_total')})", "burned"),
        ],
        colours={"minted": GREEN, "burned": ORANGE},
        low=0.0,
    )


def _supply() -> model.Panel:
    about = About(
        "Supply",
        "Tokens in existence. A step that minting does not explain is an inflation attack: `iace run` proves "
        "conservation in Phase II.",
        TOKENS,
    )
    return lines_panel(about, [prom(of("iace_supply_tokens"), "supply")], colours={"supply": BLUE}, decimals=3)


def _entropy() -> model.Panel:
    about = About(
        "Entropy",
        "Entropy of the commit shares and the supply. It falls where few nodes make most of the transactions.",
        "suffix: nat",
    )
    return lines_panel(
        about, [influx('mean("entropy")', "iace_kpi", alias="entropy")], colours={"entropy": GREY}, decimals=4
    )


def _kpi(name: str) -> model.Panel:
    limit = style.kpi_limit(name)
    about = About(
        style.kpi_title(name),
        f"Healthy {limit} by default, which the ground shows; the dashed line is the limit in force.",
        style.kpi_unit(name),
        style.kpi_runbooks(name),
    )
    return lines_panel(
        about,
        [prom(of(KPI_METRICS[name]), name), prom(of("iace_kpi_limit", f'kpi="{name}",level="healthy"'), "limit")],
        steps=style.limit_steps(limit),
        colours={name: "text", "limit": ORANGE},
        dashed=("limit",),
        low=0.0,
        decimals=4,
    )
