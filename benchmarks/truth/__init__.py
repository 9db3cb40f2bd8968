"""Does replay tell which quantizer trains? The paper's tables in miniature."""
