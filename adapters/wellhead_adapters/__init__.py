"""The programs: one folder a source, independent of each other, each over the library ``wellhead``."""
