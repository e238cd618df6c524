"""`inferno monitor`: a running server, watched."""

from inferno.cli.monitor.command import monitor

__all__ = ["monitor"]
