"""The parts of the speech recognition engine: finding speech, recognising, punctuating, answering."""
