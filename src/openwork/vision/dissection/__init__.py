"""What units detect, by masks, words and removal."""
