"""The machine under a run: device and precision, batch sizes that fit, progress, paths, timing."""
