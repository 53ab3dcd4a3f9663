"""Reading a key on one model, and what may be concluded from it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amb.api.context import Context
from amb.api.interfaces import Method
from amb.api.records import Evidence, Key
from amb.errors import UsageError
from amb.runtime.compute import Compute
from amb.runtime.scratch import open_scratch

if TYPE_CHECKING:
    from torch import Tensor

    from amb.api.vision import SuspectView, VisionModel


def read_model(
    method: Method,
    key: Key,
    model: VisionModel,
    unmarked: Callable[[], VisionModel] | None,
    compute: Compute | None = None,
) -> Evidence:
    """Read a key on a model, seen as the method may see it."""
    from amb.api.vision import SuspectView

    return read_view(method, key, SuspectView(model, method.access), unmarked, compute)


def read_images(
    method: Method,
    key: Key,
    view: SuspectView,
    images: Tensor,
    unmarked: Callable[[], VisionModel],
    compute: Compute | None = None,
) -> Evidence:
    """Read a key on images of the reader's own choice. Raises UsageError where the method cannot."""
    with open_scratch() as folder:
        ctx = Context(("verify", key.digest), {}, folder, compute or Compute(), base=unmarked)
        try:
            return method.extract_on(view, key, images, ctx)
        except NotImplementedError:
            raise UsageError(f"{method.name} is read on the images of its key alone, not on others.") from None


def read_view(
    method: Method,
    key: Key,
    view: SuspectView,
    unmarked: Callable[[], VisionModel] | None,
    compute: Compute | None = None,
) -> Evidence:
    """Read a key on whatever stands behind a view. `unmarked` loads the model as it was before it was marked."""
    with open_scratch() as folder:
        ctx = Context(("verify", key.digest), {}, folder, compute or Compute(), base=unmarked)
        return method.extract(view, key, ctx)
