"""The errors a user can meet. Each message says what was found, what was expected and what to do."""


class OptimumInt8Error(Exception):
    """Base class: `except OptimumInt8Error` catches everything this package raises on purpose."""


class ConfigError(OptimumInt8Error, ValueError):
    """A setting, an environment variable or a command-line value that cannot be used."""


class DataError(OptimumInt8Error, ValueError):
    """A dataset that cannot be read or lacks what the task needs (a column, a row, a label), or a call with sizes that a `.pt2` is not made for."""


class CalibrationError(OptimumInt8Error, RuntimeError):
    """Ranges cannot be derived: nothing was observed, or what was observed is not finite."""


class QuantizationError(OptimumInt8Error, RuntimeError):
    """A model that cannot be quantized as asked."""


class CheckpointError(OptimumInt8Error, OSError):
    """A checkpoint that is damaged, foreign, newer than this package, or cannot be written."""


class KernelError(OptimumInt8Error, RuntimeError):
    """The native library refused a call; the arguments break a kernel's contract."""
