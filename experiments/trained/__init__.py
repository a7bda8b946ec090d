"""One trained network: it is trained or fine-tuned, evaluated, asked, and taken elsewhere."""
