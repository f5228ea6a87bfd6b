"""The synthetic users: what rows say, position by position, and the real user who is nearest to each."""

from collections.abc import Sequence

import numpy as np
import torch

from recdistill.certificate.wording import counted, percent
from recdistill.data.batches import PAD
from recdistill.data.rows import HardRows, Rows, SoftRows
from recdistill.data.sequences import Histories
from recdistill.evaluation.privacy import Nearness, nearness
from recdistill.evaluation.top_items import TopItems, top_items, top_labels
from recdistill.report.markup import Markup, Part, element, join
from recdistill.report.material import Material
from recdistill.report.section import Section, paragraph
from recdistill.report.svg import shortened

MOST_ROWS = 12
MOST_POSITIONS = 100
"""Positions of a row that are shown, its last ones."""
SHOWN_ITEMS = 3
"""Most probable items of a position."""
MOST_ENTRIES = 6_000
"""Items that the section names at most; fewer for each position where rows are many and long."""
LONGEST_TITLE = 60
SEEN = "\u2713"


def users(material: Material) -> Section:
    """Return some rows, folded up, each with its nearest real user where the prepared dataset was given."""
    rows, titles = material.made.rows, [shortened(title, LONGEST_TITLE) for title in material.made.titles()]
    title = "The synthetic users"
    if not isinstance(rows, HardRows | SoftRows) or len(rows) == 0:
        told = "The dataset holds no rows that could be shown, only how often each item occurs."
        return Section(ident="users", title=title, parts=(paragraph(told),))
    entries = _items_shown(rows)
    found = [top for row in range(min(MOST_ROWS, len(rows))) if (top := top_items(rows, row, entries)) is not None]
    near = None if material.histories is None else nearness(_likeliest(found), material.histories, len(titles) - 1)
    shown = [_row(rows, row, top, titles, material.histories, near) for row, top in enumerate(found)]
    return Section(ident="users", title=title, parts=(paragraph(_told(rows, near)), *shown))


def _likeliest(found: Sequence[TopItems]) -> HardRows:
    """Return the likeliest item of each position as rows of ids."""
    sequences = [top.ids[:, 0] for top in found]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return HardRows(torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD), lengths)


def _told(rows: Rows, near: Nearness | None) -> str:
    count = min(MOST_ROWS, len(rows))
    told = f"The first {count} of {counted(len(rows), 'row')}. " if count < len(rows) else ""
    if isinstance(rows, SoftRows):
        told += f"Each position is a distribution over items; the {_items_shown(rows)} most probable are named. "
    else:
        told += "Rows hold items. "
    if near is None:
        return told + "Real users stand beside them when the report is made with --prepared."
    return told + (
        f"{SEEN} marks items that the nearest real user has. Parts of real histories are shown here: leave out "
        "--prepared to publish this page."
    )


def _items_shown(rows: Rows) -> int:
    entries = min(MOST_ROWS, len(rows)) * min(MOST_POSITIONS, max(rows.length, 1))
    return max(1, min(SHOWN_ITEMS, MOST_ENTRIES // entries))


def _row(
    rows: Rows,
    row: int,
    found: TopItems,
    titles: Sequence[str],
    histories: Histories | None,
    near: Nearness | None,
) -> Markup:
    labels = top_labels(rows, row, _items_shown(rows))
    user = -1 if near is None else int(near.users[row])
    history = _history(histories, user)
    parts: list[Part] = []
    if near is not None:
        parts.append(paragraph(_neighbour(near, row, history)))
    parts.append(_positions(found, labels, titles, frozenset(history)))
    if history:
        parts.append(_matching(found, history, titles))
    first = ", ".join(titles[item] for item in found.ids[:3, 0].tolist())
    summary = element("summary", element("b", f"Row {row + 1}"), " ", shortened(first, 90))
    return element("details", summary, parts, open=row == 0)


def _history(histories: Histories | None, user: int) -> list[int]:
    """Return the training items of a user; none of nobody."""
    if histories is None or user < 0:
        return []
    return np.asarray(histories.items[histories.offsets[user] : histories.train_end[user]]).tolist()


def _neighbour(near: Nearness, row: int, history: Sequence[int]) -> str:
    if not history:
        return "No real user has any of its likeliest items."
    copied = " The row stands in a real history as it is." if near.copied[row] else ""
    held = percent(1 - float(near.distances[row]))
    events = counted(len(history), "training event")
    return f"The nearest real user has {held} of its likeliest items, among {events}.{copied}"


def _positions(found: TopItems, labels: TopItems | None, titles: Sequence[str], seen: frozenset[int]) -> Markup:
    """Return the items of each position, in order; of long rows the last ones."""
    length = len(found.ids)
    first = max(0, length - MOST_POSITIONS)
    items = [
        element("li", _entry(found, place, titles, seen), _label(labels, place, titles), value=place + 1)
        for place in range(first, length)
    ]
    left_out = paragraph(f"The first {first} positions are left out.", class_="note") if first else None
    return join(left_out, element("ol", items, class_="positions", start=first + 1, tabindex="0"))


def _entry(found: TopItems, place: int, titles: Sequence[str], seen: frozenset[int]) -> Markup:
    """Return the items of a position, with probabilities where it is a distribution."""
    certain = found.ids.shape[1] == 1 and float(found.chances[place, 0]) == 1.0
    parts: list[Part] = []
    for item, chance in zip(found.ids[place].tolist(), found.chances[place].tolist(), strict=True):
        sign = f"\u00a0{SEEN}" if item in seen else ""
        words = join(titles[item], None if certain else element("small", f"\u00a0{percent(chance)}"), sign)
        parts.append(element("span", words, class_="first" if not parts else None))
    return join([(part, "; " if index + 1 < len(parts) else None) for index, part in enumerate(parts)])


def _label(labels: TopItems | None, place: int, titles: Sequence[str]) -> Markup | None:
    """Return what the labels expect after a position."""
    if labels is None:
        return None
    pairs = zip(labels.ids[place].tolist(), labels.chances[place].tolist(), strict=True)
    expected = "; ".join(f"{titles[item]} {percent(chance)}" for item, chance in pairs)
    return element("small", f" \u2192 {expected}", class_="label")


def _matching(found: TopItems, history: Sequence[int], titles: Sequence[str]) -> Markup:
    """Return the last training items of the nearest user, those that the row has marked."""
    likely = frozenset(found.ids[:, 0].tolist())
    first = max(0, len(history) - max(len(found.ids), 1))
    shared = sum(item in likely for item in history)
    items = [
        element("li", element("span", titles[item], f" {SEEN}") if item in likely else titles[item], class_=None)
        for item in history[first:]
    ]
    told = (
        f"The nearest real user: {counted(shared, 'event')} of {len(history):,} with a likeliest item of the row "
        f"({SEEN}); the last {len(history) - first:,} events"
    )
    return element("details", element("summary", told), element("ol", items, class_="positions", tabindex="0"))
