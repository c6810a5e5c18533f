"""`python -m workers`: the node agent; with ``--replica`` one replica, as the agent starts it or a person by hand."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from inferq import errors, process
from inferq.scheduling.placement import Place
from workers.node import NodeAgent


def main(argv: Sequence[str] | None = None) -> int:
    parser = process.parser(
        "workers", "The node agent of this host: devices, and replicas as placement wants them."
    )
    parser.add_argument("--replica", metavar="NAME", help="be one replica, MODEL@DEVICE.HOST, instead")
    parser.add_argument("--model", help="the replica's model (default: from its name)")
    parser.add_argument("--device", help="the replica's device (default: from its name)")
    arguments = parser.parse_args(argv)
    try:
        settings = process.settings_of(arguments)
        process.configure_logging(settings)
        if arguments.replica:
            # Only here: the agent must not carry what a replica needs.
            return int(import_module("workers.replica").run(settings, _place(arguments)))
    except errors.ConfigError as error:
        return process.fail(error.message, 2)
    except errors.InferqError as error:
        return process.fail(error.message)
    config = Path(arguments.config).absolute() if arguments.config else None
    return process.run_until_signal(lambda stopping: NodeAgent(settings, config=config).run(stopping))


def _place(arguments: object) -> Place:
    name: str = vars(arguments)["replica"]
    model, _, where = name.partition("@")
    device, _, node = where.partition(".")
    if not (model and device and node):
        raise errors.ConfigError(f"--replica must look like MODEL@DEVICE.HOST, not {name!r}")
    values = vars(arguments)
    return Place(
        name=name,
        model=values["model"] or model.partition("#")[0],
        device=values["device"] or device,
        node=node,
    )


if __name__ == "__main__":
    sys.exit(main())
