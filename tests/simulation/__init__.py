"""Seeded random schedules of everything that can happen to a pooler, with the invariants checked after every step.

`pools.py` is a world of pools, budgets, clients and servers without a byte; `links.py` is one with the real links, relays and protocol
over sockets of memory. Replay a schedule with `python -m tests.simulation --world pools --seed N`: it prints what happened, step by step.
"""
