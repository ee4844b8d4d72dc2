"""How a medkg stage runs on Kafka."""
