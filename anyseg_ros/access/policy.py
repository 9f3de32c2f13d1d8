"""The interface of a live node, and the SROS2 policy (version 0.2.0) that allows that and nothing else.

One enclave for each: segmentation_node, the injector between drivers and node, and the drivers, who may publish what
the others read and nothing that those publish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from rclpy.node import Node

EVERYBODYS_TOPICS = ("/rosout", "/parameter_events", "/clock", "/tf", "/tf_static")
"""Those of ROS itself; not a sensor's."""
OF_PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
    "get_type_description",
)
"""Services of every node."""


class NamesakeError(Exception):
    """Two nodes of one full name: the middleware answers for either, and not always for the same."""


@dataclass(frozen=True)
class Interface:
    """What a node publishes, subscribes to, serves and calls: full names."""

    namespace: str
    name: str
    publishes: frozenset[str] = frozenset()
    subscribes: frozenset[str] = frozenset()
    serves: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()


def interface_of(node: Node, publishes: Iterable[str] = (), subscribes: Iterable[str] = ()) -> Interface:
    """The interface of a node of this process, as the middleware has it, with topics that it takes up only later.

    Raises NamesakeError.
    """
    asked = node.get_name(), node.get_namespace()
    if node.get_node_names_and_namespaces().count(asked) > 1:
        raise NamesakeError(
            f"another node is called {node.get_fully_qualified_name()}, too: end it, or set "
            "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF for this one"
        )
    return Interface(
        node.get_namespace(),
        node.get_name(),
        _names(node.get_publisher_names_and_types_by_node(*asked)) | {*publishes},
        _names(node.get_subscriber_names_and_types_by_node(*asked)) | {*subscribes},
        _names(node.get_service_names_and_types_by_node(*asked)),
        _names(node.get_client_names_and_types_by_node(*asked)),
    )


def drivers_of(readers: Sequence[Interface], name: str = "drivers") -> Interface:
    """Who publishes what these nodes read and none of them publishes: sensors, their camera_info, odometry and TF."""
    made = frozenset[str]().union(*(reader.publishes for reader in readers))
    read = frozenset[str]().union(*(reader.subscribes for reader in readers))
    own = {f"{readers[0].namespace.rstrip('/')}/{name}/{service}" for service in OF_PARAMETERS}
    return Interface(
        readers[0].namespace,
        name,
        publishes=(read - made) | {"/rosout", "/parameter_events"},
        subscribes=frozenset({"/clock"}),
        serves=frozenset(own),
    )


def policy(enclaves: Mapping[str, Interface]) -> str:
    """The policy file, XML: what each enclave (by its path, such as `/anyseg/drivers`) may do."""
    root = ElementTree.Element("policy", version="0.2.0")
    listed = ElementTree.SubElement(root, "enclaves")
    for path, interface in enclaves.items():
        enclave = ElementTree.SubElement(listed, "enclave", path=path)
        profiles = ElementTree.SubElement(enclave, "profiles")
        profile = ElementTree.SubElement(profiles, "profile", ns=interface.namespace, node=interface.name)
        for names, kind, action in (
            (interface.publishes, "topic", "publish"),
            (interface.subscribes, "topic", "subscribe"),
            (interface.serves, "service", "reply"),
            (interface.calls, "service", "request"),
        ):
            if names:
                allowed = ElementTree.SubElement(profile, f"{kind}s", {action: "ALLOW"})
                for name in sorted(names):
                    ElementTree.SubElement(allowed, kind).text = name
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _names(found: list[tuple[str, Any]]) -> frozenset[str]:
    return frozenset(name for name, _ in found)
