"""Networks that see: what their units prefer, what they detect, how they compute it."""
