"""What `scripts/bench` is made of.

cases.py says what is measured, endpoints.py through what, pgbench.py / sysbench.py / idle.py measure, report.py prints; proc.py and
programs.py know about Linux processes. Nothing here is part of dualpool.
"""
