"""What moves a unit: images of a corpus and drawn stimuli."""
