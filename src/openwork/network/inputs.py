"""From text, token ids, tensors or keyword arguments to the arguments of one module call and the layout of its rows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openwork.errors import BadInput
from openwork.network.layout import Layout, width_of
from openwork.task import Inputs, Tensors


@dataclass(eq=False)
class Prepared:
    """The arguments of one call.

    Args:
        kwargs: keyword arguments of the module.
        layout: where the real tokens lie.
    """

    kwargs: dict[str, Any]
    layout: Layout


@dataclass(eq=False)
class Preparer:
    """Prepares inputs for one network.

    Args:
        module: the network.
        tokenizer: its tokenizer, if it has one.
        main: the name of its main argument.
        causal: whether a later token is known never to change an earlier row.
        vocabulary: number of token ids, if it reads tokens.
        longest: the largest number of positions, if it has one.
        axes: the axes of the images that it reads, if it reads any.
        channels: how many channels these have.
    """

    module: nn.Module
    tokenizer: Any
    main: str
    causal: bool
    vocabulary: int | None
    longest: int | None
    axes: tuple[str, ...] | None = None
    channels: int = 0

    def __post_init__(self) -> None:
        parameters = inspect.signature(getattr(self.module, "_orig_mod", self.module).forward).parameters
        self.accepts = set(parameters)
        self._first = next(self.module.parameters(), None)

    @property
    def device(self) -> torch.device:
        """The device that inputs belong on."""
        return self._first.device if self._first is not None else torch.device("cpu")

    def prepare(self, inputs: Any, side: str = "right") -> Prepared:
        """Arguments for `inputs`; rows of unequal length are padded on `side`.

        Raises:
            BadInput: if the inputs cannot be read as a batch of this network.
        """
        if isinstance(inputs, Prepared):
            return inputs
        if isinstance(inputs, str) or (isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], str)):
            texts = [inputs] if isinstance(inputs, str) else list(inputs)
            inputs = Inputs(tuple(tuple(self.encode(text)) for text in texts))
        if isinstance(inputs, Inputs):
            return self._rows(inputs, side)
        if isinstance(inputs, Tensors):
            return self._tensors(inputs)
        if isinstance(inputs, Tensor):
            return self._tensor(inputs)
        if isinstance(inputs, Mapping):
            return self._kwargs(dict(inputs))
        raise BadInput(f"expected text, Inputs, a tensor or the module's arguments; got {type(inputs).__name__}")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer puts around it."""
        if self.tokenizer is None:
            raise BadInput("this network has no tokenizer, so it cannot read text; pass token ids or tokenizer=")
        if not text:
            raise BadInput("expected a text; got an empty one")
        ids = self.tokenizer(text)["input_ids"]
        if not ids:
            raise BadInput(f"expected at least one token; the tokenizer makes none of {text[:40]!r}")
        return list(ids)

    def _tensors(self, inputs: Tensors) -> Prepared:
        prepared = self._kwargs(dict(inputs.values))
        if inputs.regions:
            value = prepared.kwargs[self.main]
            size = tuple(n for a, n in zip(self.axes or (), value.shape, strict=False) if a in ("y", "x"))
            wrong = [name for name, mask in inputs.regions.items() if tuple(mask.shape[1:]) != size]
            if wrong:
                got = tuple(inputs.regions[wrong[0]].shape[1:])
                raise BadInput(f"expected regions of the size of the images, {size}; {wrong[0]!r} has {got}")
            prepared.layout.regions = dict(inputs.regions)
        return prepared

    def _rows(self, inputs: Inputs, side: str) -> Prepared:
        lengths = tuple(len(row) for row in inputs.ids)
        width = max(lengths)
        pad = getattr(self.tokenizer, "pad_token_id", None) or 0
        left = side == "left"
        ids = torch.full((len(lengths), width), pad)
        mask = torch.zeros(len(lengths), width, dtype=torch.long)
        for r, row in enumerate(inputs.ids):
            columns = slice(width - len(row), None) if left else slice(0, len(row))
            ids[r, columns] = torch.tensor(row)
            mask[r, columns] = 1
        kwargs: dict[str, Any] = {self.main: ids}
        # behind a causal mask, tokens on the right cannot be seen and need no mask
        if min(lengths) < width and (left or not self.causal):
            kwargs["attention_mask"] = mask
        prepared = self._kwargs(kwargs)
        offsets = tuple(width - n if left else 0 for n in lengths)
        prepared.layout = Layout(offsets, lengths, width, inputs.groups)
        return prepared

    def _tensor(self, value: Tensor) -> Prepared:
        reads_tokens = self.vocabulary is not None
        if reads_tokens and (value.is_floating_point() or value.dtype == torch.bool or value.ndim not in (1, 2)):
            raise BadInput(f"expected token ids of shape (batch, position); got {value.dtype} {tuple(value.shape)}")
        return self._kwargs({self.main: value[None] if reads_tokens and value.ndim == 1 else value})

    def _kwargs(self, kwargs: dict[str, Any]) -> Prepared:
        config = getattr(self.module, "config", None)
        if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in self.accepts:
            source = kwargs.get(self.main)
            if "decoder_input_ids" not in kwargs and isinstance(source, Tensor):
                start = getattr(config, "decoder_start_token_id", None) or 0
                kwargs["decoder_input_ids"] = torch.full((source.shape[0], 1), start)
        kwargs = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in kwargs.items()}
        ids = kwargs.get(self.main)
        if not isinstance(ids, Tensor):
            ids = next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
            if ids is None:
                raise BadInput(f"expected a tensor argument, such as {self.main}; got {sorted(kwargs)}")
            return Prepared(kwargs, Layout.full(ids.shape[0], width_of(ids)))
        self._check_image(ids)
        if not ids.numel():
            raise BadInput(f"expected at least one row and one token; got shape {tuple(ids.shape)}")
        if not ids.is_floating_point() and ids.ndim == 2:
            self._check_ids(ids)
        elif ids.is_floating_point() and not bool(torch.isfinite(ids).all()):
            raise BadInput(f"expected finite values in {self.main}; got NaN or infinity")
        mask = kwargs.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape != ids.shape:
            return Prepared(kwargs, Layout.full(ids.shape[0], width_of(ids)))
        layout = Layout.from_mask(mask)
        if any(layout.offsets) and "position_ids" in self.accepts and "position_ids" not in kwargs:
            kwargs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp_min(0)
        if "attention_mask" not in self.accepts and not any("kwargs" in name for name in self.accepts):
            raise BadInput("this network takes no attention_mask; give rows of equal length, or no left padding")
        return Prepared(kwargs, layout)

    def _check_image(self, value: Tensor) -> None:
        """Refuse what is no batch of images for a network that reads these, before a convolution does."""
        if self.axes is None:
            return
        axes = ", ".join(self.axes).replace("batch", "image").replace("channel", str(self.channels))
        if value.ndim != 4:
            raise BadInput(f"expected images ({axes}); got {tuple(value.shape)}")
        channel = self.axes.index("channel")
        if value.shape[channel] != self.channels:
            other = 1 if channel == 3 else 3
            turned = value.shape[other] == self.channels
            hint = f" The channels seem to be axis {other}: permute them." if turned else ""
            raise BadInput(f"expected images ({axes}); got {tuple(value.shape)}.{hint}")
        if not value.is_floating_point():
            raise BadInput(
                f"expected images as floating values; got {value.dtype}. Divide bytes by 255 and give them to "
                "net.images.encode, which makes of them what this network reads"
            )

    def _check_ids(self, ids: Tensor) -> None:
        low, high = (int(x) for x in torch.aminmax(ids))
        if self.vocabulary is not None and (low < 0 or high >= self.vocabulary):
            raise BadInput(f"expected token ids from 0 to {self.vocabulary - 1}; got {low if low < 0 else high}")
        if self.longest is not None and ids.shape[1] > self.longest:
            raise BadInput(f"expected at most {self.longest} tokens a row; got {ids.shape[1]}")
