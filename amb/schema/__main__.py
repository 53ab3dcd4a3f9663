"""`python -m amb.schema` writes the published schemas anew; a test holds them to the models."""

from amb.schema import write

write()
