"""Arms compared on the same starts and batches: search, runs, pairing, statistics, verdict."""
