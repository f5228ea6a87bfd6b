"""The style sheet: text and marks stand out in both schemes, and series differ for eyes that see fewer colours.

Contrast as WCAG 2.1 computes it; colour blindness as Machado et al. (2009) simulate it. Taste is not proved.
"""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

from recdistill.report.svg import COLOURS, SHAPES

STYLE = (files("recdistill.report") / "style.css").read_text(encoding="utf-8")
SCHEMES = dict(zip(("light", "dark", "print"), re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL), strict=True))
SERIES = [f"s{index}" for index in range(COLOURS)]
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""What of linear light an eye sees."""


def colours(scheme: str) -> dict[str, np.ndarray]:
    """Return the colours of a scheme by name, in linear light."""
    found = {}
    for name, digits in re.findall(r"--(\w+): #([0-9a-f]{3,6})\b", SCHEMES[scheme]):
        full = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        values = np.array([int(full[place : place + 2], 16) / 255 for place in (0, 2, 4)])
        found[name] = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return found


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    weights = np.array([0.2126, 0.7152, 0.0722])
    dark, light = sorted((float(weights @ one), float(weights @ other)))
    return (light + 0.05) / (dark + 0.05)


def lab(colour: np.ndarray) -> np.ndarray:
    """Return a colour in CIE Lab."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = matrix @ np.clip(colour, 0, 1) / np.array([0.9505, 1.0, 1.089])
    cube = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * cube[1] - 16, 500 * (cube[0] - cube[1]), 200 * (cube[1] - cube[2])])


def test_black_on_white_is_the_known_contrast() -> None:
    assert contrast(np.zeros(3), np.ones(3)) == pytest.approx(21)
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=0.1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out_from_paper_and_shade(scheme: str) -> None:
    found = colours(scheme)
    for name in ("ink", "soft", "link", "s1", "s3"):  # the last two write answers
        assert contrast(found[name], found["paper"]) >= 4.5, name
    assert contrast(found["ink"], found["shade"]) >= 7


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SERIES)
def test_marks_stand_out_from_paper(scheme: str, name: str) -> None:
    found = colours(scheme)
    assert contrast(found[name], found["paper"]) >= 3


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_first_series_differ_for_every_eye(scheme: str, sight: str) -> None:
    found = colours(scheme)
    seen = {name: lab(SIGHT[sight] @ found[name]) for name in SERIES[:4]}  # all data, distilled, two controls
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 12, (one, other)


def test_every_series_has_its_class_and_neighbours_have_other_shapes() -> None:
    for name in SERIES:
        assert f".{name} {{ color: var(--{name}); }}" in STYLE
    assert len(set(SHAPES)) == len(SHAPES) > COLOURS  # a repeated colour has another shape


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert not re.search(r"@import|url\(|https?:|@font-face", STYLE)
