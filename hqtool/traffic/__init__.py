"""What a layer moves through memory: element counts, bills in bits, layer specs (section 6)."""
