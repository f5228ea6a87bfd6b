"""Click logs as they are published: where their columns lie and which of them are features.

A layout turns a source into lazy rows with the columns of its spec. A new one is one function and one line of
:data:`LAYOUTS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recdistill.data.clicks.blocks import ClickLog, scanned
from recdistill.data.clicks.fields import ClickSpec, Field


@dataclass(frozen=True)
class Layout:
    """How one published click log is read.

    Args:
        spec: its fields, label, time and group.
        rows: the rows of a source, lazily.
        needs: what a source must hold, in a few words.
    """

    spec: ClickSpec
    rows: Callable[[Path], pl.LazyFrame]
    needs: str

    def open(self, source: Path) -> ClickLog:
        """Return the log of a source.

        Raises:
            DataError: the source does not hold what it must.
        """
        return ClickLog.of(self.rows(source), self.spec, source)


def plain(*names: str) -> tuple[Field, ...]:
    """Return categorical fields."""
    return tuple(Field(name=name) for name in names)


def numeric(*names: str, buckets: int = 50) -> tuple[Field, ...]:
    """Return numeric fields."""
    return tuple(Field(name=name, kind="numeric", buckets=buckets) for name in names)


def joined(log: pl.LazyFrame, folder: Path, tables: Sequence[tuple[str, str]]) -> pl.LazyFrame:
    """Return a log with the columns of Parquet tables beside it, each by its key; columns that are there stay.

    Raises:
        DataError: a table is missing.
    """
    for name, key in tables:
        table = scanned(folder / name)
        there = set(log.collect_schema().names()) - {key}
        extra = [column for column in table.collect_schema().names() if column not in there]
        log = log.join(table.select(extra), on=key, how="left", maintain_order="left")
    return log


def inside(path: Path, name: str) -> tuple[Path, Path]:
    """Return the log of a folder, and the folder; a log itself is taken as it is."""
    return (path / name, path) if path.is_dir() else (path, path.parent)


USER_RANGES = ("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range")
KUAIRAND = ClickSpec(
    fields=(
        *plain("user_id", "item_id", "tab", "hour"),
        *plain("author_id", "video_type", "upload_type", "music_id", "music_type"),
        Field(name="tag", kind="multi", separator=",", max_values=3),
        *numeric("video_duration", "server_width", "server_height", buckets=20),
        *plain("user_active_degree", "is_live_streamer", "is_video_author", *USER_RANGES),
        *plain(*(f"onehot_feat{index}" for index in range(18) if index != 3)),
        *numeric("onehot_feat3", buckets=50),
    ),
    label="is_click",
    time="time_ms",
    group="user_id",
)
"""KuaiRand-Pure: user and video ids, the tab and hour, static features of both; nothing that follows the impression."""


def kuairand(source: Path) -> pl.LazyFrame:
    """Return impressions with the features of users and videos."""
    log, folder = inside(source, "interactions.parquet")
    hour = (pl.col("hourmin") // 100).alias("hour")
    return joined(scanned(log), folder, (("items.parquet", "item_id"), ("users.parquet", "user_id"))).with_columns(hour)


OPEN_BANDIT = ClickSpec(
    fields=(
        *plain("item_id", "position", "campaign"),
        *plain(*(f"user_feature_{index}" for index in range(4))),
        *plain(*(f"item_feature_{index}" for index in range(1, 4))),
        *numeric("item_feature_0", buckets=20),
    ),
    label="label",
    time="timestamp_us",
)
"""Open Bandit: the item, its place on the page, and the features of both; without affinities and propensities."""


def open_bandit(source: Path) -> pl.LazyFrame:
    """Return impressions with the features of items."""
    log, folder = inside(source, "interactions.parquet")
    return joined(scanned(log), folder, (("items.parquet", "item_id"),))


MOVIELENS = ClickSpec(
    fields=(*plain("user_id", "item_id"), Field(name="genres", kind="multi", max_values=4)),
    label="click",
    time="timestamp",
    group="user_id",
)
"""MovieLens as clicks: a rating of 4 or more is one."""


def movielens(source: Path) -> pl.LazyFrame:
    """Return ratings as clicks, with the genres of the films."""
    log, folder = inside(source, "interactions.parquet")
    return joined(scanned(log), folder, (("items.parquet", "item_id"),)).with_columns(
        (pl.col("rating") >= 4).cast(pl.Int8).alias("click")
    )


CRITEO_COLUMNS = ("label", *(f"I{index}" for index in range(1, 14)), *(f"C{index}" for index in range(1, 27)))
CRITEO = ClickSpec(
    fields=(
        *numeric(*CRITEO_COLUMNS[1:14]),
        *(Field(name=name, min_count=2) for name in CRITEO_COLUMNS[14:]),
    ),
    time=None,
)
"""Criteo Kaggle: 13 counts and 26 hashed categories, in the order of time but without it."""


def criteo(source: Path) -> pl.LazyFrame:
    """Return the rows of ``train.txt``, tab-separated without a header; or of a table with Criteo's column names."""
    if source.suffix == ".txt":
        return pl.scan_csv(source, separator="\t", has_header=False, new_columns=list(CRITEO_COLUMNS))
    return scanned(source)


AVAZU = ClickSpec(
    fields=(
        *plain("hour_of_day", "weekday", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
        *plain("app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model"),
        *plain("device_type", "device_conn_type", *(f"C{index}" for index in range(14, 22))),
    ),
    label="click",
    time="time",
)
"""Avazu: the page, the application and the device of every impression; ``hour`` is read as YYMMDDHH."""


def avazu(source: Path) -> pl.LazyFrame:
    """Return impressions with their hour as a time, a time of day and a day of the week."""
    time = ("20" + pl.col("hour").cast(pl.String) + "00").str.to_datetime("%Y%m%d%H%M")
    parts = (time.alias("time"), time.dt.hour().alias("hour_of_day"), time.dt.weekday().alias("weekday"))
    return scanned(source).with_columns(*parts)


TAOBAO = ClickSpec(
    fields=(
        *plain("user", "adgroup_id", "pid", "cate_id", "campaign_id", "customer", "brand"),
        *numeric("price"),
        *plain("cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level", "shopping_level"),
        *plain("occupation", "new_user_class_level"),
    ),
    label="clk",
    time="time_stamp",
    group="user",
)
"""Taobao display advertisements (Ali_Display_Ad_Click): impressions, advertisements, user profiles."""


def taobao(source: Path) -> pl.LazyFrame:
    """Return ``raw_sample.csv`` with ``ad_feature.csv`` and ``user_profile.csv`` beside it."""
    log, folder = inside(source, "raw_sample.csv")
    users = scanned(folder / "user_profile.csv").rename(str.strip).rename({"userid": "user"})
    ads = scanned(folder / "ad_feature.csv")
    rows = scanned(log).join(ads, on="adgroup_id", how="left", maintain_order="left")
    return rows.join(users, on="user", how="left", maintain_order="left")


TMALL = ClickSpec(
    fields=(
        *plain("user_id", "item_id", "cat_id", "seller_id", "brand_id", "age_range", "gender"),
        *plain("day_of_week"),
    ),
    label="bought",
    time="time",
    group="user_id",
)
"""Tmall (IJCAI 2015): user log rows; the label is whether the action is a purchase, favourite or cart and no click."""


def tmall(source: Path) -> pl.LazyFrame:
    """Return ``user_log_format1.csv`` with ``user_info_format1.csv`` beside it; days are MMDD of one year."""
    log, folder = inside(source, "user_log_format1.csv")
    time = ("2014" + pl.col("time_stamp").cast(pl.String).str.zfill(4)).str.to_datetime("%Y%m%d")
    return (
        scanned(log)
        .join(scanned(folder / "user_info_format1.csv"), on="user_id", how="left", maintain_order="left")
        .with_columns(
            time.alias("time"),
            time.dt.weekday().alias("day_of_week"),
            (pl.col("action_type") != 0).cast(pl.Int8).alias("bought"),
        )
    )


LAYOUTS = {
    "kuairand": Layout(KUAIRAND, kuairand, "interactions.parquet, items.parquet, users.parquet"),
    "open-bandit": Layout(OPEN_BANDIT, open_bandit, "interactions.parquet, items.parquet"),
    "movielens": Layout(MOVIELENS, movielens, "interactions.parquet, items.parquet"),
    "criteo": Layout(CRITEO, criteo, "train.txt, or a table with columns label, I1 .. I13, C1 .. C26"),
    "avazu": Layout(AVAZU, avazu, "a table with Avazu's columns"),
    "taobao": Layout(TAOBAO, taobao, "raw_sample.csv, ad_feature.csv, user_profile.csv"),
    "tmall": Layout(TMALL, tmall, "user_log_format1.csv, user_info_format1.csv"),
}
"""Layouts by name."""


def open_log(path: Path, spec: ClickSpec, layout: str | None) -> ClickLog:
    """Return a log, read by its layout or, where that is ``None``, by the columns of a spec.

    Raises:
        DataError: it cannot be read, or a column is missing.
    """
    return ClickLog.open(path, spec) if layout is None else LAYOUTS[layout].open(path)
