"""`python -m amb.results.schema` writes the published schemas anew; a test holds them to the models."""

from amb.results.schema import write

write()
