"""A sweep over the model types of the installed Transformers: small random models, quantized, fused, saved, loaded and compared.

`python -m tests.sweep --help`; the page that it writes is docs/models.md.
"""
