"""syncd keeps a directory equal to another one, for containers and slow filesystems."""

__version__ = "0.1.0"

__all__ = ["__version__"]
