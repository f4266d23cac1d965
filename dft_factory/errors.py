"""Errors that a user can meet. Each message names the value, the choices and the fix."""


class DftFactoryError(Exception):
    """Base of every error of this package; shown without a traceback by the command line."""


class ConfigError(DftFactoryError, ValueError):
    """A training or evaluation setting that cannot be honoured."""


class MissingDependencyError(DftFactoryError, ImportError):
    """Something that must be installed first; the message ends with the command."""


class UpstreamContractError(DftFactoryError, RuntimeError):
    """LLaMA-Factory, transformers or a model behaves differently from what the patch relies on."""
