"""What a task computes from a batch."""
