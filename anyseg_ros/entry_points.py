"""Entry points of the nodes: Ctrl-C and SIGTERM end a process with code 0 from its first moment.

The imports of a node take seconds on a busy machine; until `node_process.run` takes the signals over there is nothing
to end in order yet. A part that is not installed is named with its extra.
"""

from __future__ import annotations

import os
import signal

from anyseg_ros.process.extras import missing_part_named


def segmentation_node() -> None:
    """Executable `segmentation_node`."""
    _end_at_once_on_signals()
    with missing_part_named():
        from anyseg_ros.node.segmentation_node import main

        main()


def simulated_vehicle() -> None:
    """Executable `simulated_vehicle`."""
    _end_at_once_on_signals()
    with missing_part_named():
        from anyseg_ros.vehicle.simulated_vehicle_node import main

        main()


def injector_node() -> None:
    """Executable `injector_node`."""
    _end_at_once_on_signals()
    with missing_part_named():
        from anyseg_ros.inject.injector_node import main

        main()


def _end_at_once_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: os._exit(0))
