"""From files on disk to batches: layouts of datasets, transforms, the loader."""
