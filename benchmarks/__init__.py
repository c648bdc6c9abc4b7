"""Measuring: `python -m benchmarks COMMAND`; README.md lists the commands.

Imports nothing heavy: every worker process imports this before it has set the number of threads.
"""
