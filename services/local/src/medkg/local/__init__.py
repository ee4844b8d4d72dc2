"""The whole fleet in one process with embedded stores."""
