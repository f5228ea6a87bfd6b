"""Which click models are compared with FuxiCTR's, under which settings, and what FuxiCTR is told to train the same.

Nothing regularises on either side: no weight decay, no dropout, no batch normalisation, no clipping of gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recdistill.training.clicks import ClickRecipe

RECIPE = ClickRecipe(learning_rate=1e-3, weight_decay=0.0, batch_size=1024, epochs=2)
"""Adam, the same steps on both sides; predictions are taken after each of the two epochs."""

EMBEDDING_DIM = 16
UNITS = (128, 64)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model with the same settings on both sides."""

    file: str
    """Where FuxiCTR's model lies in its ``model_zoo``; its class has the name of the file."""
    config: Mapping[str, Any]
    """Every argument of the library's model."""
    names: Mapping[str, tuple[str, ...]]
    """Our argument -> FuxiCTR's, none or several where FuxiCTR has none or several."""
    vectors: tuple[str, ...] = ()
    """Those of our arguments that count vectors where FuxiCTR counts their coordinates."""
    switches: Mapping[str, bool | str] = field(default_factory=dict)
    """What FuxiCTR leaves open and the library does not."""

    def peer_options(self) -> dict[str, Any]:
        """Return what FuxiCTR's model must be told so that it is the same model, trained in the same way."""
        options: dict[str, Any] = {"learning_rate": RECIPE.learning_rate, **self.switches}
        for argument, value in self.config.items():
            told = list(value) if isinstance(value, tuple) else value
            factor = self.config["embedding_dim"] if argument in self.vectors else 1
            options |= dict.fromkeys(self.names[argument], told if factor == 1 else factor * told)
        return options


_WIDTH = {"embedding_dim": ("embedding_dim",)}
_DEEP = {"embedding_dim": EMBEDDING_DIM, "hidden_units": UNITS, "dropout": 0.0}
SETTINGS = {
    "lr": Setting(
        file="LR/src/LR.py",
        config={"embedding_dim": EMBEDDING_DIM},
        names={"embedding_dim": ()},
    ),
    "fm": Setting(
        file="FM/src/FM.py",
        config={"embedding_dim": EMBEDDING_DIM},
        names=_WIDTH,
    ),
    "deepfm": Setting(
        file="DeepFM/DeepFM_torch/src/DeepFM.py",
        config=_DEEP,
        names=_WIDTH | {"hidden_units": ("hidden_units",), "dropout": ("net_dropout",)},
    ),
    "dcnv2": Setting(
        file="DCNv2/src/DCNv2.py",
        config=_DEEP | {"num_crosses": 3},
        names=_WIDTH
        | {
            "num_crosses": ("num_cross_layers",),
            "hidden_units": ("parallel_dnn_hidden_units",),
            "dropout": ("net_dropout",),
        },
        switches={"model_structure": "parallel"},
    ),
    "autoint": Setting(
        file="AutoInt/src/AutoInt.py",
        config=_DEEP | {"num_blocks": 2, "num_heads": 2, "attention_dim": 32},
        names=_WIDTH
        | {
            "num_blocks": ("attention_layers",),
            "num_heads": ("num_heads",),
            "attention_dim": ("attention_dim",),
            "hidden_units": ("dnn_hidden_units",),
            "dropout": ("net_dropout",),
        },
        switches={"use_scale": True, "use_residual": True, "use_wide": False, "layer_norm": False},
    ),
    "xdeepfm": Setting(
        file="xDeepFM/src/xDeepFM.py",
        config=_DEEP | {"cross_units": (16, 16)},
        names=_WIDTH
        | {
            "cross_units": ("cin_hidden_units",),
            "hidden_units": ("dnn_hidden_units",),
            "dropout": ("net_dropout",),
        },
    ),
    "finalmlp": Setting(
        file="FinalMLP/src/FinalMLP.py",
        config=_DEEP | {"num_heads": 4, "gate_units": (64,)},
        names=_WIDTH
        | {
            "hidden_units": ("mlp1_hidden_units", "mlp2_hidden_units"),
            "num_heads": ("num_heads",),
            "gate_units": ("fs_hidden_units",),
            "dropout": ("mlp1_dropout", "mlp2_dropout"),
        },
        switches={"use_fs": True},
    ),
    "wukong": Setting(
        file="WuKong/src/WuKong.py",
        config=_DEEP
        | {
            "num_layers": 2,
            "products": 8,
            "combinations": 8,
            "rank": 8,
            "product_units": (64,),
            "hidden_units": (64, 32),
        },
        names=_WIDTH
        | {
            "num_layers": ("num_layers",),
            "products": ("fmb_dim",),
            "combinations": ("compression_dim",),
            "rank": ("project_dim",),
            "product_units": ("fmb_units",),
            "hidden_units": ("mlp_hidden_units",),
            "dropout": ("dropout_rate",),
        },
        vectors=("products", "combinations"),
    ),
}
"""What is compared, by the library's name."""

COMMON = {"optimizer": "adam", "loss": "binary_crossentropy", "gpu": -1, "metrics": ["AUC"], "verbose": 0}
"""What FuxiCTR is told for every model."""

DIFFERENCES = {
    "all": (
        "FuxiCTR draws vectors from N(0, 0.0001^2), we from N(0, 0.01^2). A row without any of the values of a "
        "multi-valued field has a vector of zeros there; ours is learnt."
    ),
    "lr": (
        "FuxiCTR learns one number per id, and adds up those of several values; ours is the inner product of the id's "
        "vector with a weight per field, which moves further in as many steps of Adam."
    ),
    "fm": "The linear part: as lr.",
    "deepfm": "The linear part: as lr.",
    "xdeepfm": "The linear part: as lr.",
    "autoint": (
        "FuxiCTR's queries, keys, values and residuals have no bias, and its second layer adds its input as it is; "
        "ours adds a linear map of it in every layer, equation 8 of the paper."
    ),
    "finalmlp": (
        "The weights of products begin at a standard deviation of .044 in FuxiCTR, of .079 in ours; the last layer of "
        "ours weighs the heads."
    ),
    "wukong": (
        "FuxiCTR draws the compression of the products from N(0, 1), we by Xavier's rule. It makes its linear "
        "combinations of all coordinates, not of vectors; puts one more ReLU behind the products; maps both parts "
        "back to as many vectors as there are fields, so that its residual is the input itself; and normalises all "
        "coordinates of a row at once, not vector by vector. Ours follows the paper's equations."
    ),
}
"""What still differs between the two sides."""
