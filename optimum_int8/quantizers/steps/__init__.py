"""What the tasks share: loading, model inputs, batches, and the ways to build an INT8 model."""
