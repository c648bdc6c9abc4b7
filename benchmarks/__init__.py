"""The benchmark suite: model x shape x engine, every engine in turns with ours. Run by `scripts/benchmark`.

Imports nothing heavy: every worker process imports this before it has set the number of threads.
"""
