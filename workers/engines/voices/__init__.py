"""The parts of the speech engine: sentences, voices of several kinds, and encoding while the sound is made."""
