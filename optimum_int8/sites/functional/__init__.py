"""Functional ops in the code of other people's modules, `F.linear(x, self.weight)` or `torch.matmul(q, k)`: found, named, and made modules."""
