"""Training a model: the visible loop, and gradients accumulated over what fits into memory."""
