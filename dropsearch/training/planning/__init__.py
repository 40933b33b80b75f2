"""Selection of engine and width: compatibility, equivalence, throughput and memory."""
