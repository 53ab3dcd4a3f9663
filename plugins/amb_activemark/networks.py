"""ActiveMark's encoder and decoder, and the place in the tokens that carries the message."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from amb import VisionModel


class Encoder(nn.Sequential):
    """[carrier, message] -> the carrier's replacement. Its form is not given in the paper: one hidden layer."""

    def __init__(self, n_carrier: int, n_bits: int, hidden: int, squash: bool) -> None:
        layers = [nn.Linear(n_carrier + n_bits, hidden), nn.ReLU(), nn.Linear(hidden, n_carrier)]
        super().__init__(*layers, *([nn.Sigmoid()] if squash else []))


class Decoder(nn.Sequential):
    """What the decoder reads -> the probability of each bit."""

    def __init__(self, n_input: int, n_bits: int, hidden: int) -> None:
        super().__init__(nn.Linear(n_input, hidden), nn.ReLU(), nn.Linear(hidden, n_bits), nn.Sigmoid())

    def logits(self, read: Tensor) -> Tensor:
        """The bits before the sigmoid, which has no gradient where it is saturated."""
        hidden, relu, output, _sigmoid = self
        return cast(Tensor, output(relu(hidden(read))))


class Carrier(NamedTuple):
    """Which values of the tokens (n, tokens, dim) are read and replaced. Registers are never touched."""

    form: Literal["channel", "token"]
    position: int
    """Which channel, or which of the places that may carry: CLS, then the patches."""
    n_prefix: int
    """CLS and registers of the model at hand."""

    def read(self, tokens: Tensor) -> Tensor:
        """The carrier's values, (n, carrier)."""
        places = self._list_places(tokens)
        return tokens[:, places, self.position] if self.form == "channel" else tokens[:, places[self.position]]

    def write(self, tokens: Tensor, values: Tensor) -> Tensor:
        """A copy of the tokens with the carrier replaced."""
        places = self._list_places(tokens)
        tokens = tokens.clone()
        if self.form == "channel":
            tokens[:, places, self.position] = values
        else:
            tokens[:, places[self.position]] = values
        return tokens

    def _list_places(self, tokens: Tensor) -> Tensor:
        """CLS, where there is one, and the patches."""
        first = torch.arange(min(self.n_prefix, 1))
        return torch.cat([first, torch.arange(self.n_prefix, tokens.shape[1])]).to(tokens.device)


class Taps(NamedTuple):
    """What of one batch of images enters the encoder and the later blocks."""

    tokens: Tensor  # (n, tokens, dim): what leaves the block, p(x)
    carrier: Tensor  # (n, carrier): what the encoder reads


def tap(model: VisionModel, images: Tensor, block: int, carrier: Carrier) -> Taps:
    """p(x) and the encoder's input: a channel is read where it is written, a token one block earlier."""
    before = model.run_blocks(model.embed(images), 0, block)
    tokens = model.run_blocks(before, block, block + 1)
    return Taps(tokens, carrier.read(tokens if carrier.form == "channel" else before))


class Outputs(NamedTuple):
    """What the later blocks make of tokens."""

    tokens: Tensor  # (n, tokens, dim): output tokens
    embedding: Tensor  # (n, features): the output embedding
    read: Tensor  # (n, input of the decoder)


class LaterBlocks(nn.Module):
    """q: the blocks after the frozen ones, as one module, so that it can also run with other weights."""

    def __init__(
        self, model: VisionModel, block: int, carrier: Carrier, reads: Literal["embedding", "carrier"]
    ) -> None:
        super().__init__()
        self.model, self.block, self.carrier, self.reads = model, block, carrier, reads

    def forward(self, tokens: Tensor) -> Outputs:
        """The output tokens, and what the decoder reads: the embedding, or what enters the last block."""
        model, depth = self.model, self.model.n_blocks
        last = model.run_blocks(tokens, self.block + 1, depth - 1)
        output = model.backbone.finish(model.run_blocks(last, depth - 1, depth))
        embedding = model.backbone.pool(output)
        return Outputs(output, embedding, embedding if self.reads == "embedding" else self.carrier.read(last))
