"""Which columns of a click log are features, and how their values become ids."""

from dataclasses import dataclass
from typing import Any

from recdistill.errors import OptionError, choose, require_at_least

KINDS = {
    "categorical": "one value a row",
    "numeric": "a number a row, cut into buckets of equal count",
    "multi": "several values a row: a list, or text with a separator",
}
RULES = {
    "grow": "an id of its own for every value that is met often enough in a block; one id for all others",
    "hash": "a fixed number of ids that values share",
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A feature field: one column of a click log, and the rule by which its values become ids."""

    name: str
    """Column."""
    kind: str = "categorical"
    """``categorical``, ``numeric`` or ``multi``."""
    rule: str = "grow"
    """Of categorical and multi-valued fields."""
    min_count: int = 1
    """``grow``: rows of a block in which a new value must occur to get an id, at least 1."""
    buckets: int = 50
    """Ids that values share under ``hash``; most buckets of a number. At least 2."""
    separator: str = "|"
    """Between the values of a multi-valued text."""
    max_values: int = 5
    """Values of a multi-valued field that are read, the first ones; at least 1."""

    def __post_init__(self) -> None:
        """Check every option."""
        choose(f"field {self.name}: kind", self.kind, KINDS)
        choose(f"field {self.name}: rule", self.rule, RULES)
        require_at_least(
            1, **{f"field {self.name}: {name}": getattr(self, name) for name in ("min_count", "max_values")}
        )
        require_at_least(2, **{f"field {self.name}: buckets": self.buckets})

    @property
    def width(self) -> int:
        """Ids that a row has of this field."""
        return self.max_values if self.kind == "multi" else 1


@dataclass(frozen=True, kw_only=True)
class ClickSpec:
    """What a click log is read for: its fields, the label, and when and for whom a row was shown."""

    fields: tuple[Field, ...]
    """Features, in the order in which models see them; one or more, each name once."""
    label: str = "label"
    """Column of the label, 0 or 1."""
    time: str | None = "timestamp"
    """Column of the time, whole numbers or date-times; ``None`` where the order of rows is all there is."""
    group: str | None = None
    """Column by whose values grouped AUC groups, often the user; ``None`` for none."""

    def __post_init__(self) -> None:
        """Check that every column has one part to play."""
        if not self.fields:
            raise OptionError("fields", "none", fix="name one or more feature columns")
        names = [field.name for field in self.fields]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError("fields", twice, fix="is named twice; name each field once")
        if self.label in names:
            raise OptionError("fields", self.label, fix="is the label; a feature that tells the label teaches nothing")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields."""
        return tuple(field.name for field in self.fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read, each once."""
        others = (name for name in (self.label, self.time, self.group) if name is not None)
        return tuple(dict.fromkeys((*self.names, *others)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Ids that a row has of each field."""
        return tuple(field.width for field in self.fields)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a manifest."""
        fields = [{name: getattr(field, name) for name in field.__dataclass_fields__} for field in self.fields]
        return {"fields": fields, "label": self.label, "time": self.time, "group": self.group}

    @staticmethod
    def from_dict(value: dict[str, Any]) -> "ClickSpec":
        """Return what :meth:`as_dict` told."""
        fields = tuple(Field(**field) for field in value["fields"])
        return ClickSpec(fields=fields, label=value["label"], time=value["time"], group=value["group"])
