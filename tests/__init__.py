"""Tests of amb and its plugins."""
