"""Hostile input of every kind, each tried in a process of its own with limits."""
