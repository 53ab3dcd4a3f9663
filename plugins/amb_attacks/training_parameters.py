"""The parameters of attacks that train a task head, and more or less of the encoder, on the attacker's images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import TrainingConfig


class TrainingParameters(amb.Attack):
    """Base of these attacks. One that starts from another default declares that parameter again."""

    leading: ClassVar[tuple[str, ...]] = ()
    """Parameters that come first in spec texts and tables, though they are declared in a subclass of this."""

    schedule: amb.LrSchedule = "cosine"
    """Learning rate over the steps: constant, cosine to 0 after a tenth of warm-up, or linear to 0."""
    lr: float = Field(5e-4, ge=0)
    """Learning rate of the encoder."""
    head_lr: float = Field(3e-3, gt=0)
    """Learning rate of the new head."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    epochs: int = Field(5, ge=0)
    """Passes over the images."""
    batch: int = Field(64, ge=1)
    """Images per step."""
    n_images: int = Field(2048, ge=1)
    """How many of the attacker's images to train on."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Put the leading parameters first: pydantic has those of a base before those of its subclass."""
        super().__pydantic_init_subclass__(**kwargs)
        fields = cls.__pydantic_fields__
        rest = [name for name in fields if name not in cls.leading]
        cls.__pydantic_fields__ = {name: fields[name] for name in (*cls.leading, *rest)}
        cls.model_rebuild(force=True)

    def training_config(self) -> TrainingConfig:
        """How long and how fast to train."""
        from amb import TrainingConfig

        return TrainingConfig(
            self.schedule,
            lr=self.lr,
            head_lr=self.head_lr,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch=self.batch,
            n_images=self.n_images,
        )
