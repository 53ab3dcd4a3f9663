"""From a reference or a file to a model at hand: heads, checkpoints, references, and the cache of loaded models."""
