"""A recommender that reads what items say of themselves.

An item vector is what a text encoder makes of the item's text; over these vectors runs any sequence model. What is
unusual here: there is no item table. A step encodes the items that occur in it, each once, and the sequence model sees
them as a small catalogue of its own. So a model can rank items that it never met, and a catalogue is exchanged by
:meth:`TextRecommender.attach`.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from recdistill.data.batches import HardItems, Items, SequenceBatch, SoftItems
from recdistill.data.text import MISSING, Catalogue
from recdistill.errors import ArtifactError, InputError, OptionError, RecdistillError, choose, require_at_least
from recdistill.models.base import Recommender
from recdistill.models.encoders import POOLINGS, AllLayers, UpperLayers, load_encoder, pool, upper_layers
from recdistill.models.gru4rec import GRU4Rec
from recdistill.models.item_states import ItemStates, states_of
from recdistill.models.layers import Randomness, linear
from recdistill.models.lora import LowRankAdapters
from recdistill.models.narm import NARM
from recdistill.models.sasrec import SASRec
from recdistill.models.subcatalogue import occurring, places, renumbered

BODIES: dict[str, type[Recommender]] = {model.name: model for model in (SASRec, GRU4Rec, NARM)}
"""Sequence models that can run over text vectors: those that keep nothing of an item but its vector."""

TINYBERT = "huawei-noah/TinyBERT_General_4L_312D"
"""Name on the hub of the encoder that FOSTER's experiments are taken to use: they say TinyBERT and no more."""

OF_THE_ENCODER = (
    *("encoder", "fingerprint", "layers", "pooling", "max_tokens"),
    *("lora_rank", "lora_alpha", "lora_dropout"),
)
"""Arguments that fit one encoder and perhaps no other."""

ITEMS_PER_PART = 1024
"""Items encoded at a time where a whole catalogue is."""


class TextRecommender(Recommender):
    """A sequence model over item vectors that a language model makes of the items' texts.

    The encoder is trained with it: all of its layers, the last few, low-rank adapters of these, or none. States below
    the trained layers are computed once for every item and read from disk.

    Weights of the encoder that are not trained are not among those that are saved: they lie in its own files.

    Real histories are learnt with the binary loss and sampled negatives, or with a softmax over all items; distilled
    distributions with a softmax over a sampled part of the catalogue. What is sampled is drawn anew in every step by
    :meth:`sampled`.

    Args:
        num_items: size of the catalogue, V; changed by :meth:`attach`.
        max_seq_len: longest history, in items.
        encoder: folder of a Hugging Face encoder or decoder, or its name on the hub; TinyBERT with 4 layers of width
            312 from the hub, where none is given.
        layers: how many of its last layers are trained; ``all``, or 0 to keep it as it is.
        pooling: how a text's states become a vector: ``mean``, ``cls`` or ``last``.
        max_tokens: longest text, in tokens; what is longer is cut.
        template: how a text is made of an item's attributes, see :mod:`recdistill.data.text`; ``None`` for all of them.
        missing_text: ``error``, or ``blank`` to read items without a text as one that says so.
        body: the sequence model, one of :data:`BODIES`.
        body_options: its keyword arguments, ``embedding_dim`` excepted.
        embedding_dim: width of item vectors: of a linear map behind the encoder; ``None`` for the encoder's own width
            without such a map.
        lora_rank: rank of the adapters, which are then all that is trained of the layers; 0 for none.
        lora_alpha: the adapters' output is multiplied by ``lora_alpha / lora_rank``.
        lora_dropout: rate before the adapters.
        negatives: sampled items per target, in the binary loss; 0 for a softmax over all items, which is for encoders
            of which little is trained: a step encodes the whole catalogue.
        candidates: sampled items per step, in the loss of distributions; at most V are taken.
        fingerprint: SHA-256 of the encoder that the weights belong to; ``None`` accepts any.
        generator: where the weights are drawn from.

    Raises:
        OptionError: a value is out of its range.
        InputError: the encoder cannot be read.
        ArtifactError: it is not the encoder of ``fingerprint``.

    Reference: Yuan et al., Where to Go Next for Recommender Systems?, SIGIR 2023; FOSTER, arXiv 2605.30772, section 2.1
    and appendix D.4.

    Departures: negatives are uniform over all items but the target. The encoder has no dropout but that of its
    adapters.
    """

    name = "text"
    reads_text = True

    def __init__(
        self,
        num_items: int,
        max_seq_len: int,
        *,
        encoder: str = TINYBERT,
        layers: int | Literal["all"] = 1,
        pooling: str = "mean",
        max_tokens: int = 32,
        template: str | None = None,
        missing_text: str = "error",
        body: str = "sasrec",
        body_options: Mapping[str, Any] | None = None,
        embedding_dim: int | None = None,
        lora_rank: int = 0,
        lora_alpha: float = 128.0,
        lora_dropout: float = 0.1,
        negatives: int = 1,
        candidates: int = 512,
        fingerprint: str | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        require_at_least(1, max_seq_len=max_seq_len, candidates=candidates)
        require_at_least(1, embedding_dim=embedding_dim)
        require_at_least(0, lora_rank=lora_rank, negatives=negatives)
        choose("pooling", pooling, POOLINGS)
        choose("missing_text", missing_text, MISSING)
        body_class = choose("body", body, BODIES)
        pretrained = load_encoder(encoder)
        if fingerprint not in (None, pretrained.fingerprint):
            raise ArtifactError(
                f"is another encoder than the weights belong to (SHA-256 {pretrained.fingerprint[:12]}..., needed is "
                f"{str(fingerprint)[:12]}...)",
                fix="give the encoder that the model was trained with",
                path=encoder,
            )
        count = None if layers == "all" else int(layers)
        if count is not None and not 0 <= count <= pretrained.num_layers:
            raise OptionError(
                "layers", layers, fix=f"must be all, or 0 to {pretrained.num_layers}, the layers there are"
            )
        if lora_rank and count == 0:
            raise OptionError("lora_rank", lora_rank, fix="adapts trained layers, and layers is 0; ask for 1 or more")
        width = embedding_dim or pretrained.width
        options = dict(body_options or {})
        for option in options:
            choose(f"body_options of {body}", option, body_class.options())
        if options.get("embedding_dim", width) != width:
            raise OptionError(
                "body_options", options, fix=f"give another embedding_dim than {width}; leave it out there"
            )
        self.config = {
            "num_items": num_items,
            "max_seq_len": max_seq_len,
            "encoder": encoder,
            "layers": layers,
            "pooling": pooling,
            "max_tokens": max_tokens,
            "template": template,
            "missing_text": missing_text,
            "body": body,
            "body_options": options,
            "embedding_dim": embedding_dim,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_dropout": lora_dropout,
            "negatives": negatives,
            "candidates": candidates,
            "fingerprint": pretrained.fingerprint,
        }
        self.num_items, self.max_seq_len = num_items, max_seq_len
        self.count, self.pooling = count, pooling
        self.layers = _trained_layers(pretrained, count)
        self.adapters = None
        if lora_rank:
            assert self.layers is not None
            self.adapters = LowRankAdapters(
                self.layers, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout, generator=generator
            )
        elif self.layers is not None:
            self.layers.requires_grad_(True)
        self.projection = None if embedding_dim is None else _drawn_map(pretrained.width, embedding_dim, generator)
        self.body = body_class(0, max_seq_len, **options | {"embedding_dim": width}, generator=generator)
        self.body.item_table.requires_grad_(False)
        self.states: ItemStates | None = None
        self.register_state_dict_post_hook(_without_frozen)
        self.register_load_state_dict_pre_hook(_with_frozen)

    def frozen(self) -> dict[str, Tensor]:
        """Return the weights of the encoder's upper layers that are not trained."""
        named = self.named_parameters()
        return {name: value for name, value in named if name.startswith("layers.") and not value.requires_grad}

    def attach(self, catalogue: Catalogue) -> "TextRecommender":
        """Give the model the items that it is to rank, and return it.

        Raises:
            DataError: an item has no text.
            OptionError: the template or ``max_tokens`` does not fit.
        """
        options = self.config
        texts = catalogue.texts(options["template"], options["missing_text"])
        self.states = states_of(
            load_encoder(options["encoder"]),
            texts,
            max_tokens=options["max_tokens"],
            layers=self.count,
            pooling=self.pooling,
            cache=catalogue.cache,
        )
        self.num_items = self.config["num_items"] = len(texts)
        return self

    def fresh(self, generator: torch.Generator) -> "TextRecommender":
        """Return a model of the same kind and catalogue: the encoder as it was pretrained, all else drawn anew."""
        made = super().fresh(generator)
        assert isinstance(made, TextRecommender)
        made.states = self.states
        return made

    def vectors(self, items: Int[Tensor, " n"], generator: Randomness | None = None) -> Float[Tensor, "n D"]:
        """Return the vectors of some items (ids 1 to V); ``generator`` switches the dropout of adapters on.

        Raises:
            RecdistillError: the model has no catalogue.
        """
        values, mask = (part.to(self.device) for part in self._texts().rows(items))
        if values.is_floating_point():
            values = values.to(self.body.item_table)
        if self.layers is None:
            found = values.squeeze(1)
        elif self.adapters is None:
            found = pool(self.layers(values, mask), mask, self.pooling)
        else:
            with self.adapters.randomness(generator):
                found = pool(self.layers(values, mask), mask, self.pooling)
        return found if self.projection is None else self.projection(found)

    def _texts(self) -> ItemStates:
        if self.states is None:
            raise RecdistillError("a text model ranks the items of a catalogue; give it one with attach(catalogue)")
        return self.states

    def table(self, items: Int[Tensor, " n"] | None, generator: Randomness | None = None) -> Float[Tensor, "n1 D"]:
        """Return an item table of some items, row 0 for padding; of all of them when ``None``, in parts."""
        if items is None:
            everything = torch.arange(1, self.num_items + 1)
            found = torch.cat([self.vectors(part, generator) for part in everything.split(ITEMS_PER_PART)])
        else:
            found = self.vectors(items, generator)
        return torch.cat([found.new_zeros(1, found.shape[1]), found])

    @property
    def item_table(self) -> Float[Tensor, "V1 D"]:
        """The vectors of all items, computed when asked for; :meth:`fixed` keeps them."""
        return self.table(None)

    @property
    def item_width(self) -> int:
        """Width of an item vector."""
        return self.body.item_width

    def forward(
        self, batch: SequenceBatch, generator: Randomness | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B P D"]]:
        """Return the loss, and the hidden vectors from which the targets are predicted; twice differentiable.

        Items that occur in the batch are encoded, each once; all items where the loss runs over all of them.
        """
        items = occurring(batch)
        table = self.table(items, generator)
        if items is not None:
            batch = renumbered(batch, items)
        found: tuple[Tensor, Tensor] = functional_call(
            self.body, {self.body.item_table_name: table}, (batch, generator)
        )
        return found

    def sampled(self, batch: SequenceBatch, generator: torch.Generator) -> SequenceBatch:
        """Return the batch with what is drawn for a step: negatives of ids, candidates of distributions."""
        return sampled(batch, self.num_items, self.config["negatives"], self.config["candidates"], generator)

    def embed(self, items: Items) -> Float[Tensor, "B T D"]:
        """Return item vectors, as ``encode`` reads them."""
        if not isinstance(items, HardItems):
            return items.embed(self.item_table)
        found = items.ids.unique().cpu()
        found = found[found > 0]
        return self.table(found)[places(items.ids, found)]

    def encode(
        self,
        embedded: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        positions: Int[Tensor, "B P"] | None = None,
        generator: Randomness | None = None,
    ) -> Float[Tensor, "B P D"]:
        """Return what the sequence model makes of rows of item vectors."""
        return self.body.encode(embedded, lengths, positions, generator)

    @torch.no_grad()
    def fixed(self) -> Recommender:
        """Return the sequence model with the vectors of all items in its table: for scoring, not for training."""
        made = copy.deepcopy(self.body)
        setattr(made, made.item_table_name, nn.Parameter(self.item_table, requires_grad=False))
        made.num_items = made.config["num_items"] = self.num_items
        return made

    def load_item_table(self, factor: Float[Tensor, "V D2"], *, freeze: bool) -> None:
        """Raise: item vectors come from texts.

        Raises:
            OptionError: always.
        """
        asked = "frozen" if freeze else "given"
        raise OptionError("--items", asked, fix="has no use: a text model makes item vectors of texts; use random")


def sampled(
    batch: SequenceBatch, num_items: int, negatives: int, candidates: int, generator: torch.Generator
) -> SequenceBatch:
    """Return a batch with negatives for targets that are ids, and with candidates for those that are distributions.

    Without negatives ids stay as they are: their loss is a softmax over all items.
    """
    targets = batch.items if batch.targets is None else batch.targets
    if isinstance(targets, HardItems):
        if negatives == 0:
            return batch
        if num_items < 2:
            raise InputError("the catalogue has 1 item, and a negative is another one; give data with more items")
        return batch.with_negatives(negatives, num_items, generator)
    if not isinstance(targets, SoftItems) or targets.candidates is not None or candidates >= num_items:
        return batch
    chosen = torch.randperm(num_items, generator=generator)[:candidates] + 1
    return batch.among(chosen)


def _trained_layers(pretrained: Any, count: int | None) -> AllLayers | UpperLayers | None:
    if count == 0:
        return None
    return AllLayers(pretrained.model) if count is None else upper_layers(pretrained, count)


def _drawn_map(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    made = linear(inputs, outputs)
    with torch.no_grad():
        made.weight.normal_(0.0, inputs**-0.5, generator=generator)
        made.bias.zero_()
    return made


def _without_frozen(model: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Take what is not trained out of a model's state."""
    assert isinstance(model, TextRecommender)
    for name in model.frozen():
        del state[prefix + name]


def _with_frozen(model: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """Put what is not trained back before a state is loaded."""
    assert isinstance(model, TextRecommender)
    for name, value in model.frozen().items():
        state.setdefault(prefix + name, value.detach())
