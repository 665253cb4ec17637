"""What a process of its own has around it, and a server inside a test has not."""

import os
from collections.abc import Callable

import attrs

from dualpool.signals import DUALPOOL, Meanings
from dualpool.systemd import Inherited, Manager, inherited


@attrs.frozen
class Surroundings:
    """The default is a process that was started by a person or by systemd."""

    signals: Meanings = DUALPOOL
    manager: Manager = attrs.field(factory=lambda: Manager(os.environ))
    inherited: Inherited = attrs.field(factory=lambda: inherited(os.environ))
    when_ready: Callable[[], None] = lambda: None
    """Called once, when every listener listens."""
