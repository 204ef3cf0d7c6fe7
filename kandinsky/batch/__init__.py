"""Many prompts through one pipeline: `make_items` or `read_prompts`, then `run_batch`."""

from kandinsky.batch.prompts import Item, make_items, read_prompts
from kandinsky.batch.run import BatchResult, run_batch

__all__ = ["BatchResult", "Item", "make_items", "read_prompts", "run_batch"]
