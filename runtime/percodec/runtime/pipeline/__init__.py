"""capture -> encode -> predict with coding beside it: the ring of slots, its threads, what is counted and judged."""
