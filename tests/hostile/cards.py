"""Small sound architectures of each library, and what strangers' cards change in them."""

from __future__ import annotations

import json
from typing import Any, Final

CARDS: Final[dict[str, dict[str, Any]]] = {
    "timm": {
        "loader": "timm",
        "name": "vit_tiny_patch16_224",
        "options": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    },
    "hf": {
        "loader": "hf",
        "model_type": "dinov2",
        "image_size": 32,
        "config": {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
            "image_size": 32,
        },
    },
    "open_clip": {
        "loader": "open_clip",
        "embed_dim": 16,
        "vision": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    },
}
_OPTIONS: Final = {"timm": "options", "hf": "config", "open_clip": "vision"}
_WRONG: Final[dict[str, Any]] = {
    "zero": 0,
    "less": -1,
    "large": 65536,
    "switch": True,
    "text": "12",
    "half": 1.5,
    "null": None,
}


def list_cards() -> list[tuple[str, bytes]]:
    """Each size of each library set to what it cannot be, and cards that are wrong in other ways."""
    found = []
    for library, card in CARDS.items():
        for option in card[_OPTIONS[library]]:
            for word, value in _WRONG.items():
                options = {**card[_OPTIONS[library]], option: value}
                changed = {"architecture": {**card, _OPTIONS[library]: options}}
                found.append((f"{library} {option} {word}", json.dumps(changed).encode()))
    return found + [
        (name, json.dumps({"architecture": CARDS["timm"]} | each).encode()) for name, each in _OTHERS.items()
    ]


def _timm(**options: Any) -> dict[str, Any]:
    return {"architecture": {**CARDS["timm"], "options": {**CARDS["timm"]["options"], **options}}}


def _hf(model_type: str, size: int = 32, **config: Any) -> dict[str, Any]:
    return {"architecture": {"loader": "hf", "model_type": model_type, "image_size": size, "config": config}}


def _edits(edits: Any) -> dict[str, Any]:
    return {"architecture": {**CARDS["timm"], "edits": edits}}


def _map(size: int) -> dict[str, Any]:
    return {"architecture": {"loader": "timm", "name": "resnet10t", "options": {}, "image_size": size}}


_OTHERS: Final[dict[str, dict[str, Any]]] = {
    "wide": _timm(embed_dim=16384),
    "wide inside": _timm(mlp_ratio=65536),
    "many registers": _timm(embed_dim=1024, num_heads=1, reg_tokens=65536),
    "map of 50 GB": _map(65536),
    "map of 200 MB": _map(4096),
    "wide map": {"architecture": {**_map(64)["architecture"], "options": {"channels": [65536] * 4}}},
    "window": {
        "architecture": {
            "loader": "timm",
            "name": "swin_tiny_patch4_window7_224",
            "options": {"window_size": 256, "img_size": 2048},
        }
    },
    "hf window": _hf("swin", window_size=65536, embed_dim=16, depths=[2], num_heads=[2]),
    "hf window of 1,024": _hf("swin", window_size=1024, embed_dim=16, depths=[2], num_heads=[2]),
    "hf map": _hf("resnet", 65536, hidden_sizes=[16] * 4, embedding_size=16),
    "hf wide inside": _hf("dinov2", mlp_ratio=65536, hidden_size=24, num_attention_heads=2),
    "hf patches of a pixel": _hf("dinov2", 2048, hidden_size=24, num_attention_heads=2, patch_size=1, image_size=32),
    "hf biases": _hf("beit", use_relative_position_bias=True, image_size=2048, patch_size=1, hidden_size=24),
    "classes": {"heads": {"classification": {"n_classes": 30_000_000}}},
    "classes switch": {"heads": {"classification": {"n_classes": True}}},
    "classes zero": {"heads": {"classification": {"n_classes": 0}}},
    "classes text": {"heads": {"classification": {"n_classes": "3"}}},
    "dropout": {"heads": {"classification": {"n_classes": 3, "dropout": 9}}},
    "side": {"heads": {"segmentation": {"n_classes": 3, "side": 65536}}},
    "side zero": {"heads": {"segmentation": {"n_classes": 3, "side": 0}}},
    "head unknown": {"heads": {"__class__": {}}},
    "head list": {"heads": {"classification": []}},
    "edits number": _edits(1),
    "edits null": _edits(None),
    "edits text": _edits("drop-registers"),
    "edits mapping": _edits({"name": "drop-registers"}),
    "edits 30,000": _edits([{"name": "drop-registers", "parameters": {}}] * 30_000),
    "edit null": _edits([None]),
    "edit list": _edits([[]]),
    "edit unknown": _edits([{"name": "os.system", "parameters": {"command": "id"}}]),
    "edit name list": _edits([{"name": [], "parameters": {}}]),
    "edit parameters": _edits([{"name": "resize", "parameters": 3}]),
    "edit size": _edits([{"name": "resize", "parameters": {"image_size": 10**6}}]),
    "edit size odd": _edits([{"name": "resize", "parameters": {"image_size": 33}}]),
    "edit blocks": _edits([{"name": "keep-blocks", "parameters": {"n": 1000}}]),
    "edit widths": _edits([{"name": "block-widths", "parameters": {"heads": [1] * 1000, "channels": [1] * 1000}}]),
    "edit widths large": _edits([{"name": "block-widths", "parameters": {"heads": [9, 9], "channels": [10**9] * 2}}]),
    "edit mlps": _edits([{"name": "wider-mlps", "parameters": {"channels": [2**17] * 1000}}]),
    "edit mlps large": _edits([{"name": "wider-mlps", "parameters": {"channels": [2**17] * 2}}]),
    "edit maps": _edits([{"name": "map-tokens", "parameters": {"where": "first"}}] * 64),
    "edit resizes": _edits([{"name": "resize", "parameters": {"image_size": 2048}}] * 64),
    "loader list": {"architecture": {"loader": []}},
    "loader mapping": {"architecture": {"loader": {}}},
    "loader null": {"architecture": {"loader": None}},
    "loader file": {"architecture": {"loader": "file"}},
    "loader missing": {"architecture": {}},
    "architecture list": {"architecture": []},
    "architecture null": {"architecture": None},
    "name with a slash": {"architecture": {**CARDS["timm"], "name": "../../x"}},
    "name of a hub": {"architecture": {**CARDS["timm"], "name": "hf-hub:someone/model"}},
    "name list": {"architecture": {**CARDS["timm"], "name": ["a"]}},
    "path": _timm(checkpoint_path="/etc/passwd"),
    "deep list": _timm(depths=[[[[[[[[1]]]]]]]]),
    "long list": _timm(depths=[1] * 60_000),
    "tiny loader": {"architecture": {"loader": "tiny"}},
    "format": {"format": 2},
    "format switch": {"format": True},
    "extra": {"surprise": 1},
    "digest number": {"digest": 1},
    "digest null": {"digest": None},
    "weights unknown": {"weights": "pickle"},
    "library": {"weights": "library"},
    "about list": {"about": []},
    "mean": {"architecture": {**CARDS["hf"], "mean": ["a", "b", "c"]}},
    "std zero": {"architecture": {**CARDS["hf"], "std": [0, 1, 1]}},
    "std text": {"architecture": {**CARDS["hf"], "std": "123"}},
    "model type list": {"architecture": {**CARDS["hf"], "model_type": []}},
    "size switch": {"architecture": {**CARDS["hf"], "image_size": True}},
    "size text": {"architecture": {**CARDS["hf"], "image_size": "32"}},
    "tower": {"architecture": {**CARDS["open_clip"], "vision": {"timm_model_name": "resnet18", "image_size": 65536}}},
    "tower stages": {"architecture": {**CARDS["open_clip"], "vision": {"layers": [65536] * 4, "image_size": 32}}},
    "tower output": {"architecture": {**CARDS["open_clip"], "embed_dim": 65536}},
}
