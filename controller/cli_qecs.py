"""`iace qecs serve`: a reference QECS cluster behind its HTTP API, as a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from metrics.errors import BadDataError, ConfigInvalidError, IaceError, NotPermittedError

if TYPE_CHECKING:
    from qecs.cluster import Cluster
    from qecs.strict_http import StrictServer

BODIES_MAX = 3600  # ticks whose transactions the ledger holds


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    qecs = commands.add_parser("qecs", help="a reference cluster to govern")
    actions = qecs.add_subparsers(metavar="ACTION", required=True)
    serve = actions.add_parser(
        "serve",
        help="let a reference cluster live behind its HTTP API",
        description="Let a reference QECS cluster live in real time and answer on its HTTP API until it is stopped.",
        epilog="example:\n  iace qecs serve --interval 0.05 --allow-faults &\n"
        "  iace run --plant http --url http://127.0.0.1:8600 --interval 0.05 --allow-probes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--nodes", type=int, default=50, metavar="N", help="nodes (default 50)")
    serve.add_argument("--clusters", type=int, metavar="M", help="clusters (default by the model's rule)")
    serve.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    serve.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="real time of a tick (default 1)")
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (default 127.0.0.1; there is no password)")
    serve.add_argument("--port", type=int, default=8600, help="port, 0 for any free one (default 8600)")
    serve.add_argument("--data-dir", type=Path, metavar="DIR", help="keep the ledger there, and go on from it")
    serve.add_argument("--allow-faults", action="store_true", help="let clients inject faults")
    serve.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> int:
    from qecs.errors import LedgerCorruptError, QecsError  # noqa: PLC0415 - the governed system, only for this command
    from qecs.host import ClusterHost  # noqa: PLC0415 - as above
    from qecs.server import serve  # noqa: PLC0415 - as above

    try:
        host = ClusterHost(_cluster(options), interval_s=options.interval, allow_faults=options.allow_faults)
        serve(host, options.host, options.port, _announce)
    except LedgerCorruptError as error:
        raise BadDataError(f"the ledger in {options.data_dir} is damaged: {error}") from error
    except QecsError as error:
        raise ConfigInvalidError("iace qecs serve", [str(error)]) from error
    except OSError as error:
        raise _explained(error, options) from error
    return 0


def _cluster(options: argparse.Namespace) -> Cluster:
    import numpy as np  # noqa: PLC0415 - as above

    from qecs.cluster import GENESIS_BALANCE, Cluster  # noqa: PLC0415 - as above
    from qecs.ledger import Ledger  # noqa: PLC0415 - as above

    # Whoever audits it sees an hour of transactions; all of them would fill the memory in the end.
    plain = Cluster(options.nodes, clusters=options.clusters, seed=options.seed, bodies_max=BODIES_MAX)
    if options.data_dir is None:
        return plain
    directory = options.data_dir / "ledger"
    if directory.exists():
        ledger = Ledger.recover(directory)
    else:
        balances = np.full(options.nodes, GENESIS_BALANCE, dtype=np.int64)
        bounds = plain.ledger.cluster_bounds
        ledger = Ledger.genesis(balances, bounds, directory=directory, bodies_max=BODIES_MAX)
    return Cluster(options.nodes, clusters=options.clusters, seed=options.seed, ledger=ledger)


def _announce(server: StrictServer) -> None:
    sys.stdout.write(f"qecs answers on http://{server.effective_host}:{server.port}\n")
    sys.stdout.flush()


def _explained(error: OSError, options: argparse.Namespace) -> IaceError:
    if isinstance(error, PermissionError):
        return NotPermittedError(f"{error}: choose another --port above 1023, or another --data-dir")
    where = f"{options.host}:{options.port}"
    return ConfigInvalidError("iace qecs serve", [f"cannot serve on {where}: {error.strerror or error}"])
