"""Raw archives to sharded Zarr stores to training batches. Holds no model code."""
