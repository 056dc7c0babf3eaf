"""Summaries of news: CNN/Daily Mail (Hermann et al. 2015, See et al. 2017) and XSum (Narayan et
al. 2018), as `summarize: <article>`."""

import dataclasses
from collections.abc import Iterator

from t5jax.data.benchmarks.datasets import Dataset, as_in_tfds
from t5jax.data.benchmarks.glue import ALL_SPLITS
from t5jax.data.records import Row
from t5jax.data.tasks.task import Example, ExampleTask
from t5jax.metrics.summarization import rouge


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Summarize:
    """`summarize: <article>` -> the summary, from two columns."""

    article: str
    summary: str

    def __call__(self, row: Row) -> Iterator[Example]:
        yield {
            "inputs": f"summarize: {row.text(self.article)}",
            "targets": row.text(self.summary),
            "id": row.get("id"),
        }


def summarization(
    name: str, dataset: Dataset, *, article: str, summary: str, num_examples: int | None = None
) -> ExampleTask:
    """A summarization task over two columns of a data set, scored with ROUGE."""
    return dataset.task(
        name=name,
        description=f"summaries: {dataset.name}",
        examples=Summarize(article=article, summary=summary),
        metrics=(rouge,),
        num_examples=num_examples,
        splits=ALL_SPLITS,
    )


def articles(name: str, *, in_tfds: bool = True) -> Dataset:
    """A data set of articles: TFDS's `name`, or files in `summarization/<name>/`."""
    return Dataset(name=name, folder=f"summarization/{name}", adapt=as_in_tfds, in_tfds=in_tfds)


CNN_DAILYMAIL = articles("cnn_dailymail")

TASKS: tuple[ExampleTask, ...] = (
    summarization(
        "cnn_dailymail_v002",
        CNN_DAILYMAIL,
        article="article",
        summary="highlights",
        num_examples=287_113,  # TFDS catalog and Hugging Face's data set card
    ),
    summarization(
        "xsum_v110",
        articles("xsum"),
        article="document",
        summary="summary",
        num_examples=204_045,  # Narayan et al. 2018, section 2
    ),
    summarization(
        "scitldr_v001",
        articles("scitldr", in_tfds=False),
        article="document",
        summary="summary",
        num_examples=1_992,  # Cachola et al. 2020, table 1
    ),
)
