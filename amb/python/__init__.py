"""The front door from Python: run, sweep, read and show results; the command line is a thin layer over it."""
