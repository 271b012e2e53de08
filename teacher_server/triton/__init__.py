"""The teacher as a model of a Triton server: the repository that holds it, and what runs there."""
