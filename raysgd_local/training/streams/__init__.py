"""A worker's part of a stream: it reads the rows that it is dealt, makes samples of them, and batches of these."""
