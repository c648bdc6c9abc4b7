"""What a `.pt2` of ours says of itself."""

FORMAT_NAME = "optimum_int8"
FORMAT_VERSION = 2
"""Version of what the graph may hold; newer ones are refused. 2 came with `sizes`."""

EXTRA = "optimum_int8.json"
"""Name of the extra file: a JSON object with `format`, `format_version`, `model`, `torch`, `optimum_int8` and `sizes`."""
