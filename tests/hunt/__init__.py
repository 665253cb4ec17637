"""The leak hunt: random sessions on a small pool, each beside the same session on connections of its own.

script.py          what a script is: clients, their steps, probes and kills; how it is printed
spelling.py        SQL in all its spellings: comments, quotes, cases, escapes
postgres_*.py      PostgreSQL: client, world (databases, probe, judge), and what clients do
mysql_*.py         MySQL and MariaDB: the same
runner.py          runs a script on dualpool and on direct connections in step, and judges each answer
shrinker.py        the shortest script that still shows a difference
hunt.py            the loop and the command line of `scripts/hunt`
check.py           the hunt as a test of two minutes
mutants.py         dualpool with one bug put back, to see that the hunt finds it
"""
