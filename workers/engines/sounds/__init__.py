"""Decoding what strangers send as sound, in processes apart.

Must not import a model library here: the decoder's child process imports this package and has to stay small.
"""
