"""Engines: one protocol (`protocol.Engine`), two implementations.

`local.LocalEngine` runs the C++ engine in this process; `worker.WorkerEngine` runs it in a supervised child.
"""
