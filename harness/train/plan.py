"""How to train: the settings of conf/train.yaml, each checked."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossPlan(_Strict):
    """What is minimised; a family reads those that it has."""

    scale: float | None = Field(None, gt=0)
    """Factor of similarities in the softmax, 1 / temperature; None: 20 for cosines, 1 for SPLADE and MaxSim."""
    mini_batch: int | None = Field(None, ge=1)
    """Texts encoded at a time with gradients cached (Gao et al., 2021); None: the whole batch at once."""
    matryoshka: list[Annotated[int, Field(ge=1)]] | None = None
    """Dense: dimensions that are trained beside the whole vector (Kusupati et al., 2022)."""
    query_flops: float = Field(5e-5, ge=0)
    document_flops: float = Field(3e-5, ge=0)
    """SPLADE: weights of the FLOPS regulariser (Paria et al., 2020)."""


class DevPlan(_Strict):
    """What the checkpoints are chosen by."""

    split: str | None = None
    """A split of the dataset; None: training queries that are held out."""
    queries: int = Field(100, ge=1)
    documents: int | None = Field(2000, ge=1)
    """None: all. Those that answer a dev query come first, then the negatives of its rows, then any.

    Fewer queries are asked where more than half of the documents would answer them.
    """
    metric: str = "ndcg@10"


Choice = Literal["refuse", "drop", "allow"]


class LeakPlan(_Strict):
    """What is done with training rows that hold a text of the test split."""

    split: str | None = "test"
    """None: there is none to guard."""
    queries: Choice = "refuse"
    positives: Choice = "refuse"


class TrainingPlan(_Strict):
    """The trainer's settings."""

    epochs: float = Field(1, gt=0)
    batch_size: int = Field(32, ge=1)
    """Rows of one device in one step."""
    learning_rate: float | None = Field(None, gt=0)
    """None: the family's."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps."""
    weight_decay: float = Field(0.01, ge=0)
    max_length: int | None = Field(128, ge=8)
    """Tokens of a text that are trained on; None: the model's own."""
    evaluations: int = Field(4, ge=1)
    """Measurements on the dev queries, evenly over the steps, each with a checkpoint."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many of them without a better one; None: never."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products; auto is bfloat16 where the device multiplies it fast. Weights stay float32."""
    device: Literal["auto", "cpu"] = "auto"
