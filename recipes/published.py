"""Figures of TD3's paper, beside which ours stand.

TD3: Tucker Decomposition Based Dataset Distillation Method for Sequential Recommendation, WWW 2025, arXiv 2502.02854:
its tables 2 to 6. Percent; three runs each; ``value;std`` where the paper prints one. All rank the target among 100
sampled items; the item table of TD3's and Farzi's students is the teacher's, that of Random and Longest is random.

Cells that the copy at hand does not show are empty. Some of the standard deviations of Magazine and Epinions were
assigned to their cells by the order of the rows.
"""

import csv
import io
import math
from dataclasses import dataclass
from statistics import stdev

METRICS = ("HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20", "MRR@5", "MRR@10", "MRR@20")

MAIN = """\
dataset,method,budget,HR@5,HR@10,HR@20,NDCG@5,NDCG@10,NDCG@20,MRR@5,MRR@10,MRR@20
magazine,td3,10x10,34.24;.73,46.72;.71,56.65;.80,21.82;.18,25.81;.26,28.33;.30,17.74;.21,19.36;.28,20.05;.28
magazine,td3,15x15,37.11;.23,48.60;.90,60.51;.76,24.14;.21,27.82;.34,30.82;.35,19.88;.35,21.38;.34,22.20;.36
magazine,td3,25x20,34.15;1.21,47.45;.31,61.00;1.03,23.04;.28,27.36;.35,30.78;.07,19.39;.39,21.19;.44,22.12;.36
magazine,td3,30x20,34.81;.47,47.87;1.54,61.17;1.83,23.62,27.90;.88,31.25;.98,19.96,21.75;.77,22.67
magazine,full,full,34.15;.65,45.40;.76,56.98;.23,21.92;.18,25.63;.28,28.57;.14,17.90;.12,19.47;.22,20.29;.20
epinions,td3,10x50,12.07;.10,19.69;.09,30.51;.19,8.15;.07,10.59;.10,13.31;.09,6.86;.11,7.85;.13,8.60;.12
epinions,td3,15x30,12.35,19.86;.10,31.06;.19,8.27;.04,10.67;.05,13.49;.08,6.93;.09,7.91;.09,8.67;.10
epinions,td3,20x20,12.26;.30,,,8.20;.19,10.47,13.38;.12,6.88;.19,7.80;.21,8.59;.19
epinions,full,full,11.83;.42,19.13;.16,30.09;.27,7.92;.29,10.25;.19,13.00;.08,6.64;.25,7.58;.21,8.33;.17
ml-100k,td3,25x150,48.57;.23,66.45;1.27,81.30;.28,32.64;.30,38.44;.69,42.20;.35,27.39;.42,29.80;.56,30.83;.47
ml-100k,td3,30x50,49.84;1.02,66.14;1.16,81.37;.44,33.30;.31,38.56;.86,42.44;.72,27.88;.63,30.04;.85,31.12;.82
ml-100k,td3,50x50,51.86;.13,68.79;.49,82.96;.36,35.13;.59,40.62;.16,44.21;.20,29.63;.38,31.90;.19,32.89;.22
ml-100k,full,full,51.75;1.17,69.46;.26,84.37;.22,35.57;.60,41.34;.49,45.12;.54,30.24;.70,32.65;.70,33.69;.72
ml-1m,td3,50x50,56.33;.43,69.71;.37,81.88;.34,41.69;.24,46.02;.17,49.10;.14,36.83;.20,38.63;.16,39.47;.15
ml-1m,td3,100x50,56.68;.13,70.42;.20,82.82;.27,41.42;.18,45.87;.11,49.02;.20,36.37;.21,38.22;.18,39.08;.20
ml-1m,td3,200x100,62.80;.31,74.45;.17,84.83;.08,47.82;.24,51.61;.20,54.24;.18,42.84;.23,44.42;.21,45.14;.21
ml-1m,full,full,67.92;.36,78.22;.28,86.91;.09,54.02;.14,57.37;.11,59.57;.07,49.38;.09,50.78;.07,51.38;.07
"""
"""Table 2."""
BASELINES = """\
dataset,budget,metric,random,longest,farzi,td3,full
magazine,30x20,HR@10,15.44;2.68,19.62;.31,41.46;1.27,47.87;1.54,45.40
magazine,30x20,HR@20,27.50;1.03,33.66;2.73,58.70;.13,61.17;1.83,56.98
magazine,30x20,NDCG@10,7.75;1.16,9.58;.58,24.27;.20,27.90;.88,25.63
magazine,30x20,NDCG@20,10.75;.77,13.10;.30,28.65;.13,31.25;.98,28.57
epinions,15x30,HR@10,10.67;.90,10.24;.21,18.99;.30,19.86;.10,19.13
epinions,15x30,HR@20,20.25;1.25,20.01;.41,29.82;.39,31.06;.19,30.09
epinions,15x30,NDCG@10,4.93;.36,4.79;.06,10.38;.17,10.67;.05,10.25
epinions,15x30,NDCG@20,7.31;.45,7.22;.11,13.09;.07,13.49;.08,13.00
ml-100k,30x50,HR@10,10.85;2.30,13.36;.45,62.92;1.39,66.14;1.16,68.93
ml-100k,30x50,HR@20,21.49;3.98,25.59;.64,77.84;.30,81.37;.43,83.78
ml-100k,30x50,NDCG@10,4.81;1.10,5.97;.32,34.92;.71,38.56;.86,40.97
ml-100k,30x50,NDCG@20,7.48;1.28,9.02;.36,38.72;.40,42.44;.72,44.76
ml-1m,200x50,HR@10,15.88;.22,16.60;.51,38.01;.98,70.52;.36,79.32
ml-1m,200x50,HR@20,28.09;.31,30.93;.45,56.10;1.24,82.52;.25,87.60
ml-1m,200x50,NDCG@10,7.40;.11,7.77;.16,19.85;.49,45.93;.37,58.82
ml-1m,200x50,NDCG@20,10.47;.10,11.36;.14,24.41;.55,48.97;.30,60.93
"""
"""Table 3."""
TRANSFER = """\
metric,sasrec,sasrec_full,narm,narm_full,gru4rec,gru4rec_full,bert4rec,bert4rec_full
HR@10,19.75,19.61,19.60,19.43,19.11,20.25,18.98,17.14
HR@20,31.30,30.90,30.55,31.10,29.49,31.49,29.08,27.62
NDCG@10,10.61,10.45,10.67,10.25,10.55,10.93,10.31,9.29
NDCG@20,13.51,13.28,13.43,13.18,13.15,13.75,12.83,11.91
MRR@10,7.85,7.69,7.98,7.48,7.96,8.13,7.70,6.93
MRR@20,8.64,8.46,8.73,8.28,8.66,8.90,8.38,7.63
"""
"""Table 4: Epinions, 50x20, distilled with SASRec; the student's score, and its score on all data."""
COST = """\
dataset,distill_s,distill_mb,train_full_s,train_full_mb,train_synthetic_s,train_synthetic_mb
magazine,1288,742,73,666,25,534
epinions,3346,2156,87,932,18,624
ml-100k,7104,3460,347,1910,14,604
ml-1m,8819,9832,3451,3482,22,924
"""
"""Table 5: one A100 with 80 GB; seconds, and megabytes of its memory."""
ABLATION = """\
feature_alignment,augmented_training,NDCG@5,NDCG@10,MRR@5,MRR@10
0,0,33.27;.65,38.80;.51,27.90;.65,30.19;.59
1,0,34.27;.57,40.06;.33,29.03;.61,31.44;.51
0,1,34.45;.79,39.75;.27,28.84;.62,31.03;.39
1,1,35.13;.59,40.62;.16,29.63;.38,31.90;.19
"""
"""Table 6: ML-100k, 50x50."""

POINT = 0.01
"""A difference up to here is no miss, whatever the spread."""


@dataclass(frozen=True)
class Figure:
    """A published figure, as a fraction.

    Args:
        mean: over three runs.
        std: over three runs; 0 where none is printed.
    """

    mean: float
    std: float


def figure(cell: str) -> Figure | None:
    """Return a cell such as ``45.40;.76``, in percent, as a fraction; ``None`` for an empty one."""
    if not cell:
        return None
    mean, _, std = cell.partition(";")
    return Figure(float(mean) / 100, float(std or 0) / 100)


def table(text: str) -> list[dict[str, str]]:
    """Return the rows of one of the tables above."""
    return list(csv.DictReader(io.StringIO(text)))


def of_table_2(dataset: str, method: str, budget: str) -> dict[str, Figure]:
    """Return the figures of TD3 or of full data, by metric."""
    wanted = {"dataset": dataset, "method": method, "budget": budget}
    rows = [row for row in table(MAIN) if wanted.items() <= row.items()]
    return {name: found for row in rows for name in METRICS if (found := figure(row[name])) is not None}


def of_table_3(dataset: str, method: str, budget: str) -> dict[str, Figure]:
    """Return the figures of a selector, Farzi, TD3 or full data, by metric."""
    rows = [row for row in table(BASELINES) if (row["dataset"], row["budget"]) == (dataset, budget)]
    return {row["metric"]: found for row in rows if (found := figure(row[method])) is not None}


def matches(values: list[float], target: Figure) -> bool:
    """Return whether our runs match a published figure.

    Our rule: the means differ by at most two standard deviations of the difference of two runs, or by one point.

    Args:
        values: ours, one per seed, as fractions.
        target: the published figure.
    """
    spread = stdev(values) if len(values) > 1 else 0.0
    allowed = max(2 * math.hypot(spread, target.std), POINT)
    return abs(sum(values) / len(values) - target.mean) <= allowed + 1e-12
