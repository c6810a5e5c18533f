"""The parts of the speech recognition engine: decoding, finding speech, recognising, punctuating, answering.

Must not import a model library here: the decoder's child process imports this package and has to stay small.
"""
