"""What an engine is opened from: the content of a network file, read at once where only its path is given."""

from __future__ import annotations

from pathlib import Path

from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.network_content import NetworkContent, NetworkFileError

Network = Path | NetworkContent
Parts = tuple[Network, Network]
"""A network in two: its encoder and its decoder."""


def content_of(network: Network) -> NetworkContent:
    """The content of a network, read where it is a path. Raises EngineError."""
    if isinstance(network, NetworkContent):
        return network
    try:
        return NetworkContent.read(network)
    except NetworkFileError as error:
        raise EngineError(str(error)) from error
