"""Watched directories: job files become durable jobs, and their results become files.

It owns the five folders of `settings.directories` and what lies in them. It must not know HTTP or engines, and it
never touches Redis or SQL but through `queues` and `storage`.
"""
