"""The validated settings of conf/train.yaml."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _PlanModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossPlan(_PlanModel):
    """Settings of the loss; each model family uses some of them."""

    scale: float | None = Field(None, gt=0)
    """Factor of similarities in the softmax, 1 / temperature; None: 20 for cosines, 1 for SPLADE and MaxSim."""
    mini_batch: int | None = Field(None, ge=1)
    """Texts encoded at a time with gradients cached (Gao et al., 2021); None: the whole batch at once."""
    matryoshka: list[Annotated[int, Field(ge=1)]] | None = None
    """Dense: further dimensions to train with MatryoshkaLoss (Kusupati et al., 2022)."""
    query_flops: float = Field(5e-5, ge=0)
    document_flops: float = Field(3e-5, ge=0)
    """SPLADE: weights of the FLOPS regulariser (Paria et al., 2020)."""


class DevPlan(_PlanModel):
    """Settings of the dev split, which chooses the checkpoint."""

    split: str | None = None
    """A split of the dataset; None: held-out training queries."""
    queries: int = Field(100, ge=1)
    documents: int | None = Field(2000, ge=1)
    """Number of documents; None: all. Relevant documents come first, then negatives of the queries, then any others.

    Fewer queries are used if more than half of the documents would be relevant.
    """
    metric: str = "ndcg@10"


Choice = Literal["refuse", "drop", "allow"]


class LeakPlan(_PlanModel):
    """Handling of training rows that contain a text of the test split."""

    split: str | None = "test"
    """The test split; None: no check."""
    queries: Choice = "refuse"
    positives: Choice = "refuse"


class TrainingPlan(_PlanModel):
    """The trainer's settings."""

    epochs: float = Field(1, gt=0)
    batch_size: int = Field(32, ge=1)
    """Rows per device and step."""
    learning_rate: float | None = Field(None, gt=0)
    """None: the default of the model family."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps."""
    weight_decay: float = Field(0.01, ge=0)
    max_length: int | None = Field(128, ge=8)
    """Maximum number of tokens of a text; None: the model's maximum."""
    evaluations: int = Field(4, ge=1)
    """Number of evaluations on the dev split, evenly over the steps, each with a checkpoint."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without improvement; None: never."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; auto is bfloat16 on devices with fast support. Weights stay float32."""
    device: Literal["auto", "cpu"] = "auto"
