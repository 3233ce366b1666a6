"""Images made for a unit: feature visualisation and its kin."""
