"""The embedded home: the whole system on a laptop, with child processes in place of pods."""
