"""Tests of `amb/python`: the front door."""
