"""The real files of several datasets; skipped where there are none (RECDISTILL_DATA names their folder)."""

import numpy as np
import polars as pl
import pytest
import raw_samples

from recdistill.data.prepared import PrepareSpec, prepare
from recdistill.data.readers import read_log
from recdistill.data.text import Catalogue
from recdistill.errors import DataError


@pytest.fixture(scope="module")
def data():
    return raw_samples.shared_data()


def test_movielens_100k_is_the_same_in_three_formats(data, tmp_path):
    sources = (data / "raw" / "ml-100k", data / "raw" / "ml-100k-recbole", data / "ml-100k")
    made = [prepare(source, tmp_path / str(i), PrepareSpec()) for i, source in enumerate(sources)]
    for dataset in made:
        assert (dataset.num_users, dataset.num_items, dataset.manifest["interactions"]) == (943, 1682, 100_000)
        assert dataset.manifest["content_hash"] == made[0].manifest["content_hash"]
        assert dataset.hash == made[0].hash
        for name in ("history_items", "history_offsets", "train_end", "valid_end"):
            assert np.array_equal(getattr(dataset, name), getattr(made[0], name))
    assert made[0].item_titles()[0] == "Toy Story (1995)"


# folder or file below raw/, format, options, then users, items, rows, whether there is a clock
RAW = {
    "ml-1m": ("movielens-dat", {}, (75, 2182, 10_420), True),
    "ml-10m": ("movielens-dat", {}, (84, 2976, 10_000), True),
    "ml-latest-small": ("movielens-csv", {}, (671, 9066, 100_004), True),
    "s3rec": ("sequences", {}, (19_412, 11_924, 167_597), False),
    "amazon-magazine-2018/Magazine_Subscriptions.csv": (
        "amazon-csv",
        {"duplicates": "keep"},
        (72_098, 2428, 89_689),
        True,
    ),
    "amazon-magazine-2018/Magazine_Subscriptions_5.json.gz": (
        "amazon-json",
        {"duplicates": "keep"},
        (348, 157, 2375),
        True,
    ),
    "amazon-fashion-2018": ("amazon-json", {"duplicates": "keep"}, (406, 31, 3176), True),
    "epinions-tang": ("epinions-mat", {"duplicates": "keep"}, (22_164, 296_277, 922_267), False),
}


@pytest.mark.parametrize("name", RAW)
def test_published_counts(name, data):
    format, options, counts, clock = RAW[name]
    log = read_log(data / "raw" / name, **options)
    assert (log.num_users, log.num_items, log.num_interactions) == counts
    assert log.has_clock == clock
    assert read_log(data / "raw" / name, format, **options).content_hash == log.content_hash


def test_a_parquet_copy_has_the_hash_of_the_raw_files(data):
    for raw, copy, options in (
        ("ml-latest-small", "ml-latest-small", {}),
        ("epinions-tang", "epinions-tang", {"duplicates": "keep"}),
        ("amazon-magazine-2018/Magazine_Subscriptions.csv", "amazon-magazine-2018", {"duplicates": "keep"}),
    ):
        logs = [read_log(folder, **options) for folder in (data / "raw" / raw, data / copy)]
        assert logs[0].content_hash == logs[1].content_hash


def test_titles_of_magazines_without_markup(data):
    log = read_log(data / "raw" / "amazon-magazine-2018" / "Magazine_Subscriptions.csv", duplicates="drop")
    met = log.items.filter(pl.col("item_id").is_in(log.frame["item_id"].unique().to_list()))
    assert met.height == 2320
    assert not met["title"].str.contains("<span|getTime").any()
    assert met["brand"].null_count() < met.height
    assert met["category"].str.starts_with("Magazine Subscriptions").all()


def test_repeats_of_magazines_are_refused(data):
    with pytest.raises(DataError, match=r"1221 of 89689 rows repeat .* line 1608, which repeats line 1597"):
        read_log(data / "raw" / "amazon-magazine-2018" / "Magazine_Subscriptions.csv")


def test_kuairand_in_blocks(data, tmp_path):
    spec = PrepareSpec(duplicates="drop", split="blocks")
    dataset = prepare(data / "kuairand-pure-window", tmp_path / "out", spec)
    assert dataset.num_users == 25_156
    rows = pl.read_parquet(tmp_path / "out" / "interactions.parquet", columns=["block", "timestamp"])
    spans = (
        rows.group_by("block")
        .agg(pl.col("timestamp").min().alias("a"), pl.col("timestamp").max().alias("b"))
        .sort("block")
    )
    assert spans.height == 10
    assert (spans["b"][:-1] < spans["a"][1:]).all()


# folder, split, items, and what the text of one item begins with
TEXTS = {
    "dealrec-games": ("given", 17_332, "X: Beyond the Frontier - PC. Category: Video Games"),
    "dealrec-microlens-50k": ("given", 19_217, "# Yummy food"),
    "amazon-beauty-2014": ("leave-one-out", 12_101, "Glow in the Dark Neon Nail Polish (6 Pack). Category: Beauty"),
    "yelp-s3rec": ("leave-one-out", 20_033, "Moon Congee. Category: Restaurants, Bubble Tea"),
    "ml-1m": ("leave-one-out", 3416, "Toy Story (1995). Genres: Animation, Children's"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_item_of_the_text_datasets_has_a_text(name, data, tmp_path):
    split, count, begins = TEXTS[name]
    made = prepare(data / name, tmp_path / "prepared", PrepareSpec(split=split))
    texts = Catalogue(made.items(), tmp_path).texts()
    assert len(texts) == count
    assert any(text.startswith(begins) for text in texts)
