"""The bi-level engine: differentiable inner optimisers and meta-gradients. Knows torch, and no recommender."""
