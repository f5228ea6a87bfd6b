"""Figures of FOSTER's paper, beside which ours stand (arXiv 2605.30772, its table 2).

Fractions, full ranking; TinyBERT under SASRec. Its Games, Foods and Yelp are other crops than those that are public, so
that what compares is a row over the row of full data. Several runs are not told apart there, nor is their spread.
"""

import csv
import io

MAIN = """\
method,games_R@10,games_N@10,games_R@20,games_N@20,yelp_R@5,yelp_N@5,yelp_R@10,yelp_N@10
full,0.0350,0.0178,0.0564,0.0232,0.0213,0.0131,0.0390,0.0188
random,0.0317,0.0199,0.0388,0.0217,0.0133,0.0086,0.0208,0.0110
k_center,0.0311,0.0197,0.0380,0.0215,0.0108,0.0093,0.0133,0.0101
dealrec,0.0313,0.0199,0.0382,0.0216,0.0094,0.0055,0.0152,0.0074
goracs,0.0311,0.0195,0.0384,0.0214,0.0122,0.0086,0.0176,0.0103
bilevel,0.0338,0.0185,0.0477,0.0219,0.0148,0.0093,0.0281,0.0135
foster,0.0386,0.0217,0.0524,0.0251,0.0210,0.0139,0.0340,0.0181
"""
"""Table 2, without Foods; ``bilevel`` is the paper's TD3 in the last layer of the encoder."""


def share(dataset: str, method: str) -> float | None:
    """Return a method's R@10 over that of full data, of table 2; ``None`` where the paper has it not."""
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(MAIN))}
    column = f"{dataset}_R@10"
    if method not in rows or column not in rows[method]:
        return None
    return float(rows[method][column]) / float(rows["full"][column])
