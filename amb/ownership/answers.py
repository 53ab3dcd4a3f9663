"""What stands behind a suspect's view: a model whose answers are kept, answers that were kept, or a function of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amb.api.types import Access
from amb.api.vision import SuspectView, VisionModel
from amb.errors import UsageError

Answer = Callable[[NDArray[np.float32]], Any]
"""From images, (n, 3, height, width) in [0, 1], to features (n, d), logits (n, classes) or labels (n,)."""


class RecordedView(SuspectView):
    """A model's answers, kept as they were given."""

    def __init__(self, model: VisionModel, access: Access) -> None:
        super().__init__(model, access)
        self.answers: list[Tensor] = []

    def _ask_model(self, verb: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        answers = super()._ask_model(verb, images)
        self.answers.append(answers.float().cpu())
        return answers

    def joined(self) -> NDArray[np.float32] | None:
        """All answers in the order of the questions; None where none were asked."""
        found: NDArray[np.float32] | None = torch.cat(self.answers).numpy() if self.answers else None
        return found


class AnsweredView(SuspectView):
    """Whatever answers questions: what it is, is not known."""

    def __init__(self, answer: Answer, access: Access) -> None:
        if access == "weights":
            raise UsageError(
                "This key is read on weights, and a service that answers questions shows none. Read it where the weights are: "
                "`amb verify SUSPECT`; a key of spread-features is read on answers."
            )
        self.access, self.queries, self._answer = access, 0, answer
        self.asked: list[Tensor] = []
        self.answers: list[Tensor] = []

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes, (n,) int64: as they are answered, or the largest of what is."""
        answers = self._ask(images, "labels")
        return answers.long() if answers.ndim == 1 else answers.argmax(dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """Class logits, (n, classes)."""
        return self._ask(images, "logits")

    def features(self, images: Tensor) -> Tensor:
        """Output embeddings, (n, features)."""
        return self._ask(images, "features")

    def _ask(self, images: Tensor, wanted: Access) -> Tensor:
        self._require_access(wanted)
        self.queries += len(images)
        answers = torch.as_tensor(np.asarray(self._answer(images.cpu().numpy()), dtype=np.float32))
        shape = tuple(answers.shape)
        if len(answers) != len(images) or answers.ndim > 2 or (wanted != "labels" and answers.ndim != 2):
            raise UsageError(
                f"{len(images)} images were asked about and the answer has the shape {shape}, not one row for each."
            )
        if not answers.isfinite().all():
            raise UsageError("An answer is infinite or not a number, so it cannot be read. Ask again.")
        self.asked.append(images.cpu())
        self.answers.append(answers)
        return answers

    joined = RecordedView.joined


def play_back(answers: NDArray[np.float32]) -> Answer:
    """A function that gives kept answers in their order. Raises UsageError where more is asked than was answered."""
    at = 0

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal at
        rows = answers[at : at + len(images)]
        at += len(images)
        if len(rows) < len(images):
            raise UsageError(
                f"There are {len(answers)} answers, and the key asks about more images: they belong to another key."
            )
        return rows

    return answer


def list_questions(ask: Callable[[SuspectView], object], access: Access) -> Sequence[Tensor]:
    """The images that reading a key asks about. Raises UsageError where they hang on the answers."""
    first, second = (_collect_questions(ask, access, value) for value in (0.0, 1.0))
    if not first.equal(second):
        raise UsageError("This method chooses its questions by the answers, so they cannot be written down beforehand.")
    return list(first)


def _collect_questions(ask: Callable[[SuspectView], object], access: Access, value: float) -> Tensor:
    """What is asked of something that always answers the same."""

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(images), 2), value, dtype=np.float32)

    view = AnsweredView(answer, access)
    ask(view)
    return torch.cat(view.asked) if view.asked else torch.empty(0)
