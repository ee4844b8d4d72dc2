"""Haystack components behind the medkg stage Protocols, and the embedded search stores."""

import os

# Haystack reports usage over the network unless told otherwise before its first import.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
