"""Suites: owner models, innocent models, data and the measure of utility."""

from __future__ import annotations

import amb
from amb_suites.folder import FolderSuite
from amb_suites.paper import PaperClipSuite, PaperDinoSuite
from amb_suites.photos import PhotosLoader, PhotosSuite
from amb_suites.tiny import TinyLoader, TinySuite


@amb.hookimpl
def amb_register_suites() -> list[type[amb.Suite]]:
    return [TinySuite, FolderSuite, PaperClipSuite, PaperDinoSuite, PhotosSuite]


@amb.hookimpl
def amb_register_models() -> list[type[amb.ModelLoader]]:
    return [TinyLoader, PhotosLoader]
