"""The inferq library: job, lanes, errors, configuration, pure scheduling decisions, client and command line.

It owns the vocabulary that all processes share. It must not import Redis, SQL, Celery, FastAPI or an engine library.
"""

__version__ = "0.1.0"
