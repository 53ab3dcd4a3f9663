"""Many plans from one file: the definition of a sweep, and the reader of its YAML."""
