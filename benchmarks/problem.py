"""An outer step of TD3 of any size, made of random numbers: what the benchmarks measure."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recdistill.bilevel.optimizer import Adam, Student, Tensors
from recdistill.bilevel.unroll import MetaResult, Unroll
from recdistill.data.batches import supervise
from recdistill.data.sequences import hard_batch
from recdistill.distill.base import Engine
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import InnerSteps, RealBatch, RealLoss, SyntheticLoss, rows_per_part
from recdistill.distill.synthetic import TuckerSequences
from recdistill.models.sasrec import SASRec
from recdistill.rng import Streams


@dataclass(frozen=True)
class Size:
    """How large everything is; the defaults are the author's settings for ML-100k.

    Args:
        items: catalogue.
        rows, length, rank, minibatch: of the synthetic data.
        width, blocks, heads, inner: of the student.
        real: prefixes in the outer batch.
    """

    items: int = 1682
    rows: int = 30
    length: int = 50
    rank: int = 8
    minibatch: int = 15
    width: int = 32
    blocks: int = 1
    heads: int = 1
    inner: int = 64
    real: int = 4096


@dataclass(frozen=True, eq=False)
class Problem:
    """The tensors and losses of an outer step.

    Args:
        size: how large.
        engine: how the meta-gradient is computed.
        window: differentiated steps.
        dtype: of everything.
    """

    size: Size
    engine: Engine
    window: int = 40
    dtype: torch.dtype = torch.float32

    @cached_property
    def model(self) -> SASRec:
        """The student."""
        size = self.size
        model = SASRec(
            size.items,
            size.length,
            embedding_dim=size.width,
            num_blocks=size.blocks,
            num_heads=size.heads,
            inner_dim=size.inner,
            dropout=0.2,
            attention_dropout=0.5,
            generator=Streams(0).torch("weights"),
        )
        return model.to(self.dtype)

    @cached_property
    def synthetic(self) -> TuckerSequences:
        """The factors, some way from uniform, as in the middle of a run."""
        size, rng = self.size, Streams(0)
        factor = torch.randn(size.items, size.width, generator=rng.torch("item factor")) * 0.3
        synthetic = TuckerSequences(
            size.rows, size.length, size.rank, factor, pad_column=False, generator=rng.torch("factors")
        )
        with torch.no_grad():
            for value in (synthetic.user_factor, synthetic.time_factor):
                value.normal_(generator=rng.torch("far"))
        return synthetic.to(self.dtype)

    @cached_property
    def start(self) -> Student:
        """A student at the start of training."""
        return Student.of(dict(self.model.named_parameters()))

    @cached_property
    def reader(self) -> SoftReader:
        """How the synthetic rows are read."""
        items = self.synthetic.frozen_rows().items()
        return SoftReader.choose(items, self.model.item_table_name, self.size.minibatch, self.engine.dense_bytes)

    @cached_property
    def loss(self) -> SyntheticLoss:
        """The inner loss."""
        reader = self.reader
        return SyntheticLoss(
            self.model, self.size.length, "last_and_middle", reader.first_id, reader.reads, reader.sizes
        )

    @cached_property
    def judgement(self) -> RealBatch:
        """The outer loss: a batch of random prefixes and random teacher features."""
        size, rng = self.size, Streams(0)
        draw = rng.torch("prefixes")
        ids = torch.randint(1, size.items + 1, (size.real, size.length), generator=draw)
        lengths = torch.randint(1, size.length, (size.real,), generator=draw)
        ids[torch.arange(size.length) > lengths.unsqueeze(1)] = 0
        batch = supervise(hard_batch(ids, lengths), "last")
        features = torch.randn(size.real, size.width, generator=draw).to(self.dtype)
        part = rows_per_part(size.real, size.length, self.model)
        return RealBatch(RealLoss(self.model, 1.0, "mean"), batch, features, part)

    @cached_property
    def estimator(self) -> Unroll:
        """The meta-gradient."""
        return self.engine.unroll(Adam(learning_rate=0.005, weight_decay=5e-5), self.window)

    @cached_property
    def optimizer(self) -> torch.optim.Adam:
        """What moves the factors."""
        return torch.optim.Adam(self.synthetic.parameters(), lr=0.03, weight_decay=1e-4)

    def meta_gradient(self, inner_steps: int) -> tuple[MetaResult, Tensors]:
        """Return the result of the estimator, and the gradient in the factors."""
        read = self.reader.read(self.synthetic.rows().items())
        steps = InnerSteps(self.loss, plain=inner_steps - self.window, middle_seed=1, dropout_seed=2)
        result = self.estimator(steps, self.judgement, self.start, read, inner_steps)
        factors = dict(self.synthetic.named_parameters())
        bars = [result.gradient[name] for name in read]
        found: tuple[Tensor, ...] = torch.autograd.grad(list(read.values()), list(factors.values()), bars)
        return result, dict(zip(factors, found, strict=True))

    def outer_step(self, inner_steps: int) -> float:
        """Move the factors once, as TD3 does; return the outer loss."""
        result, gradient = self.meta_gradient(inner_steps)
        for name, value in self.synthetic.named_parameters():
            value.grad = gradient[name]
        torch.nn.utils.clip_grad_norm_(self.synthetic.parameters(), 1.0)
        self.optimizer.step()
        return float(result.outer_loss)
