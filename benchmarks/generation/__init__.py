"""Tokens per second of `generate()`, next to FP32 and the engines made for decoding: what `python -m benchmarks generation` measures.

rows      what is measured of each model: prefill, decoding, whole calls with beams
models    architectures with random weights of the real sizes, their prompts, the bytes that a step reads
gguf_file the same weights as a GGUF file, for the llama.cpp family
engines/  one file per engine
process   an engine in a process of its own
measure   the turns and the result
"""
