"""The command ``wellhead``. Nothing is imported here, so that it can be told to end from its first moment on."""
