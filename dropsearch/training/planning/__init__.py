"""Which engine trains and how wide: compatibility, equivalence, throughput and memory."""
