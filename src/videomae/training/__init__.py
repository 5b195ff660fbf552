"""Pre-training, fine-tuning and evaluation: two loops and what they share."""
