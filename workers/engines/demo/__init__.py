"""Small real models, made on the spot: for tests, for trying the product without a download, and for
benchmarks.

Run as `python -m workers.engines.demo --out DIR [--only NAME]`. Owns what the models know and how they are
trained. Never imported by an engine.
"""
