"""Haystack components behind the medkg stage Protocols, and the embedded search stores."""
