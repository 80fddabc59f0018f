"""The base of vLLM's own errors."""


class VLLMError(Exception):
    """Anything that vLLM raises by itself."""
