"""Which nodes should people work on? Those that keep coming back as wells, and those that were still out at the end.

Nodes with the same cause make one finding: thirty nodes that a rack took with it are one piece of work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from controller.estimates import Sure
from controller.findings import Finding, named, span
from controller.meter import REASONS
from controller.settings import Config
from controller.timeline import Isolation


def node_findings(
    isolations: Sequence[Isolation], config: Config, told: frozenset[str], since_s: Mapping[str, float]
) -> Iterator[Finding]:
    """Nodes that keep coming back as wells, and nodes that were still out at the end; but for subjects in `told`.

    `since_s` has subjects for which a longer least time out was proposed and applied, and when: that was the answer to
    all that they had done before. It is not made longer still before a node has come back under it.
    """
    stories: dict[str, list[Isolation]] = {}
    for story in isolations:
        if story.probe is None and story.verified and story.intended_at_s >= since_s.get(_again(story.node), -math.inf):
            stories.setdefault(story.node, []).append(story)
    returning: list[list[Isolation]] = []
    out: dict[str, list[Isolation]] = {}
    for node, own in stories.items():
        if _again(node) in told or (len(own) == 1 and node in told):
            continue
        if len(own) > 1:
            returning.append(own)
        elif own[-1].out:
            out.setdefault(_cause(own[-1]), []).append(own[-1])
    if returning:
        yield _returning(returning, config, max(since_s.values(), default=-math.inf))
    yield from (_still_out(cause, alike) for cause, alike in out.items())


def _again(node: str) -> str:
    return f"{node} again"


def _cause(story: Isolation) -> str:
    """What weighed most in a node's gravity, for people."""
    known = {REASONS[name]: abs(value) for name, value in story.components.items() if name in REASONS}
    return max(known, key=lambda name: known[name], default="unknown")


def _returning(stories: Sequence[Sequence[Isolation]], config: Config, in_force_s: float) -> Finding:
    """Nodes of which each was isolated more than once; a longer least time out helps against all of them.

    `in_force_s` is when the present one was applied, where that was proposed.
    """
    nodes = [own[-1].node for own in stories]
    if len(stories) == 1:
        (own,) = stories
        state = "still out at the end" if own[-1].out else "in again at the end"
        told = f"{nodes[0]} of {own[-1].cluster} was isolated {len(own)} times and {state}"
    else:
        times, out = [float(len(own)) for own in stories], sum(own[-1].out for own in stories)
        told = f"{named(nodes)} were isolated {span(times)} times each, and {out} of {len(nodes)} still out at the end"
    it, is_repaired = ("it", "it is repaired") if len(nodes) == 1 else ("them", "they are repaired")
    base = config.isolation.backoff_base_s
    longer = min(config.isolation.backoff_max_s, 2 * base)
    repair = Finding(
        kind="node",
        title=f"Repair or replace {named(nodes)}",
        summary=f"{told}; isolation does not mend {it}.",
        subjects=tuple(map(_again, nodes)),
        evidence={"isolations": [asdict(story) for own in stories for story in own]},
        nodes=tuple(nodes),
    )
    tried = any(sum(story.intended_at_s >= in_force_s for story in own) > 1 for own in stories)
    if longer <= base or not tried:
        return repair
    return replace(
        repair,
        summary=f"{repair.summary} Until {is_repaired}, a longer least time out spares the cluster such returns.",
        settings={"isolation.backoff_base_s": (base, longer)},
        risk=Sure("low", "whoever is isolated stays out longer; no more nodes may be out at once"),
        instead=repair,
    )


def _still_out(cause: str, stories: Sequence[Isolation]) -> Finding:
    """Nodes that were isolated once, for the same cause, and have not come back."""
    nodes = [story.node for story in stories]
    until = span([story.until_s for story in stories])
    if len(stories) == 1:
        told = f"{nodes[0]} of {stories[0].cluster} was isolated ({stories[0].reason}) and was"
        then = "It is let in by itself once it looks clean."
    else:
        pulled = span([story.gravity for story in stories])
        told = f"{len(nodes)} nodes were isolated, each most for its {cause} (|g| {pulled}: {named(nodes)}), and were"
        then = "Each is let in by itself once it looks clean."
    return Finding(
        kind="node",
        title=f"Repair {named(nodes)}",
        summary=f"{told} still out at the end, until {until} s unless renewed. {then}",
        subjects=tuple(nodes),
        evidence={"isolations": [asdict(story) for story in stories]},
        nodes=tuple(nodes),
    )
