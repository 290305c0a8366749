"""What people do: the commands of a schedule, and the one who now and then looks after what waits for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.simulation.schedule import Fault
from state import command as asked
from state.command import ExemptionKind
from state.durable import SELF_ENDING, DurableState, NodeStatus
from state.phase import Phase


def command_of(fault: Fault, nodes: Sequence[str]) -> tuple[asked.Command, str | None]:
    """The command that a fault stands for, and its idempotency key."""
    args = fault.args
    node = nodes[int(float(args["node"]) * len(nodes))]
    for_s = args["for_s"]
    lasting_s = 600.0 if for_s is None else float(for_s)
    key = None if args["key"] is None else f"key-{fault.at_s if args['key'] == 'new' else args['key']}"
    commands: dict[str, asked.Command] = {
        "pause": asked.Pause(lasting_s),
        "resume": asked.Resume(),
        "clear": asked.ClearSafeMode(),
        "isolate": asked.Isolate(node, for_s),
        "restore": asked.Restore(node),
        "exempt": asked.Exempt(node, ExemptionKind(args["kind"]), lasting_s, float(args["in_s"])),
        "end_exemption": asked.EndExemption(node),
        "proposal": asked.DecideProposal("p-1", approve=True),
    }
    return commands[args["name"]], key


def caretaking(state: DurableState) -> Iterator[asked.Command]:
    """What a person does about what will not end by itself."""
    if state.phase is Phase.PAUSED:
        yield asked.Resume()
    elif state.phase is Phase.SAFE_MODE and state.safe_mode_cause not in SELF_ENDING:
        yield asked.ClearSafeMode()
    for node, record in sorted(state.nodes.items()):
        if record.flapping and record.status is NodeStatus.ISOLATED:
            yield asked.Restore(node)
