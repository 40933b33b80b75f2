"""What a user module is, and how it takes learning rate, weight decay and seeds."""
